"""An encoder, and an index if there is one, behind HTTP: ``m3-retrievers serve``."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
