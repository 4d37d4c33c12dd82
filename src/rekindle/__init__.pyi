from .errors import RekindleWarning, UserError
from .exporting.export import export
from .fitting.fit import fit
from .fitting.folds import CrossValidation
from .fitting.soup import soup
from .method import Batch, Clock, DataPasses, Direction, Method, Net, Source
from .methods.directions.dtnh import DTNH
from .methods.directions.grod import GrOD
from .methods.directions.plain import PlainSum
from .methods.penalties.l2 import L2
from .methods.penalties.l2_sp import L2SP
from .methods.restarts.cosine import Cosine
from .methods.restarts.rifle import Rifle
from .models import load
from .run import Run
from .spec import RunSpec
from .tuner import Tuner

__version__: str

__all__ = [
    "DTNH",
    "L2",
    "L2SP",
    "Batch",
    "Clock",
    "Cosine",
    "CrossValidation",
    "DataPasses",
    "Direction",
    "GrOD",
    "Method",
    "Net",
    "PlainSum",
    "RekindleWarning",
    "Rifle",
    "Run",
    "RunSpec",
    "Source",
    "Tuner",
    "UserError",
    "export",
    "fit",
    "load",
    "soup",
]  # fmt: skip
