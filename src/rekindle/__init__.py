"""rekindle: deep transfer learning that keeps learning.

Importing it is quick; what needs torch, timm, Lightning or matplotlib is loaded when it is first used.
"""

from importlib.metadata import version

import lazy_loader

__version__ = version("rekindle")
__getattr__, _, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __dir__() -> list[str]:
    """The public names, which editors and notebooks offer."""
    return [*__all__, "__version__"]
