"""Training M3 and SPLADE by their own recipes: the table of contents."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
