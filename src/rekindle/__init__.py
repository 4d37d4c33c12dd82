"""rekindle: deep transfer learning that keeps learning.

Importing it is quick; what needs torch, timm, Lightning or matplotlib is loaded when it is first used.
"""

from importlib.metadata import version

import lazy_loader

__version__ = version("rekindle")
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
