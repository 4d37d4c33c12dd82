"""rekindle: deep transfer learning that keeps learning.

Importing it is quick; what needs torch, timm, Lightning or matplotlib is loaded when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rekindle.errors import UserError
    from rekindle.method import Batch, Clock, Direction, Method, Net, Passes, Source
    from rekindle.methods.directions.dtnh import DTNH
    from rekindle.methods.directions.grod import Grod
    from rekindle.methods.directions.plain import PlainSum
    from rekindle.methods.penalties.l2 import L2
    from rekindle.methods.penalties.l2_sp import L2SP
    from rekindle.methods.restarts.cosine import Cosine
    from rekindle.methods.restarts.rifle import Rifle
    from rekindle.models import load
    from rekindle.run_folder import Run
    from rekindle.runs import fit
    from rekindle.spec import RunSpec
    from rekindle.tuner import Tuner

_HOMES = {
    "rekindle.errors": ("UserError",),
    "rekindle.method": ("Batch", "Clock", "Direction", "Method", "Net", "Passes", "Source"),
    "rekindle.methods.directions.dtnh": ("DTNH",),
    "rekindle.methods.directions.grod": ("Grod",),
    "rekindle.methods.directions.plain": ("PlainSum",),
    "rekindle.methods.penalties.l2": ("L2",),
    "rekindle.methods.penalties.l2_sp": ("L2SP",),
    "rekindle.methods.restarts.cosine": ("Cosine",),
    "rekindle.methods.restarts.rifle": ("Rifle",),
    "rekindle.models": ("load",),
    "rekindle.run_folder": ("Run",),
    "rekindle.runs": ("fit",),
    "rekindle.spec": ("RunSpec",),
    "rekindle.tuner": ("Tuner",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "DTNH",
    "L2",
    "L2SP",
    "Batch",
    "Clock",
    "Cosine",
    "Direction",
    "Grod",
    "Method",
    "Net",
    "Passes",
    "PlainSum",
    "Rifle",
    "Run",
    "RunSpec",
    "Source",
    "Tuner",
    "UserError",
    "fit",
    "load",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'rekindle' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME_OF[name]), name)
