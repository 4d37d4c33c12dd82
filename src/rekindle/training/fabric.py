"""Lightning Fabric, imported without torchmetrics: Fabric asks for its version alone, and would import the whole of it, seconds, for that."""

import sys
from importlib.metadata import version
from types import ModuleType

_NAME = "torchmetrics"

if _NAME in sys.modules:
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
