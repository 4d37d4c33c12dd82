"""From folders and tables of photographs to batches. A name is loaded when it is first used, so that a list of tasks needs no torch."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
