"""rekindle: deep transfer learning that keeps learning.

Importing it is quick; what needs torch, timm, Lightning or matplotlib is loaded when it is first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
