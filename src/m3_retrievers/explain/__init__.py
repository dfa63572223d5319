"""Why a hit matched, and why it outranks another: the table of contents.

Names load on first use. ``display`` draws them for notebooks.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
