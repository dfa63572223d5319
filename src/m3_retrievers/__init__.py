"""BGE-M3 hybrid retrieval for LangChain and LlamaIndex: the table of contents.

Names load on first use, so that importing the package loads neither torch nor a framework.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
