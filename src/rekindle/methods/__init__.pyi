from .anchors.ftp import FTP
from .anchors.mixout import Mixout
from .anchors.spd import SPD
from .anchors.tpgm import TPGM
from .directions.cagrad import CAGrad
from .directions.dtnh import DTNH
from .directions.gradvac import GradVac
from .directions.grod import GrOD
from .directions.mgda import MGDA
from .directions.pcgrad import PCGrad
from .directions.plain import PlainSum
from .distillation.attention_transfer import AttentionTransfer
from .distillation.co_tuning import CoTuning
from .distillation.delta import DELTA
from .distillation.feature_maps import FeatureMaps
from .distillation.fsp import FSP
from .distillation.lwf import LwF
from .distillation.soft_targets import SoftTargets
from .flatness.sam import SAM
from .heads.lp_ft import LPFT
from .heads.source_classifier import SourceClassifier
from .layer_wise.auto_rgn import AutoRGN
from .layer_wise.freeze import Freeze
from .layer_wise.freeze_batchnorm import FreezeBatchNorm
from .layer_wise.layer_decay import LayerDecay
from .layer_wise.lora import LoRA
from .noise.cnn_dropout import CNNDropout
from .noise.disturb_label import DisturbLabel
from .noise.dropconnect import DropConnect
from .noise.dropout import Dropout
from .noise.stoch_norm import StochNorm
from .noise.stochastic_depth import StochasticDepth
from .penalties.bss import BSS
from .penalties.group_lasso_sp import GroupLassoSP
from .penalties.l1_sp import L1SP
from .penalties.l2 import L2
from .penalties.l2_mixture import L2Mixture
from .penalties.l2_sp import L2SP
from .penalties.l2_sp_fisher import L2SPFisher
from .restarts.cosine import Cosine
from .restarts.cyclic_lr import CyclicLR
from .restarts.knowledge_evolution import KnowledgeEvolution
from .restarts.later_layer_forgetting import LaterLayerForgetting
from .restarts.layer_wise_reinit import LayerWiseReinit
from .restarts.reinit_top import ReinitTop
from .restarts.rifle import Rifle
from .restarts.shrink_perturb import ShrinkPerturb
from .restarts.zapping import Zapping

__all__ = [
    "BSS",
    "DELTA",
    "DTNH",
    "FSP",
    "FTP",
    "L1SP",
    "L2",
    "L2SP",
    "LPFT",
    "MGDA",
    "SAM",
    "SPD",
    "TPGM",
    "AttentionTransfer",
    "AutoRGN",
    "CAGrad",
    "CNNDropout",
    "CoTuning",
    "Cosine",
    "CyclicLR",
    "DisturbLabel",
    "DropConnect",
    "Dropout",
    "FeatureMaps",
    "Freeze",
    "FreezeBatchNorm",
    "GrOD",
    "GradVac",
    "GroupLassoSP",
    "KnowledgeEvolution",
    "L2Mixture",
    "L2SPFisher",
    "LaterLayerForgetting",
    "LayerDecay",
    "LayerWiseReinit",
    "LoRA",
    "LwF",
    "Mixout",
    "PCGrad",
    "PlainSum",
    "ReinitTop",
    "Rifle",
    "ShrinkPerturb",
    "SoftTargets",
    "SourceClassifier",
    "StochNorm",
    "StochasticDepth",
    "Zapping",
]
