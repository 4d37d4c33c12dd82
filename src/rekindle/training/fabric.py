"""Lightning Fabric, imported without torchmetrics: Fabric asks for its version alone, and would import the whole of it, seconds, for that."""

import sys
from importlib.metadata import version
from importlib.util import find_spec
from types import ModuleType

_NAME = "torchmetrics"

if _NAME in sys.modules or find_spec(_NAME) is None:
    from lightning_fabric import Fabric
else:
    stand_in = ModuleType(_NAME)
    stand_in.__version__ = version(_NAME)  # type: ignore[attr-defined]
    sys.modules[_NAME] = stand_in
    try:
        from lightning_fabric import Fabric
    finally:
        del sys.modules[_NAME]

__all__ = ["Fabric"]
