"""BGE-M3 hybrid retrieval for LangChain and LlamaIndex: the table of contents.

Names load on first use, so that importing the package loads neither torch nor a framework.
"""

import lazy_loader

from m3_retrievers.habits import guided_module
from m3_retrievers.names import IN_FRAMEWORKS

__version__ = "0.1.0"

_lazy, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__getattr__ = guided_module(__name__, _lazy, {**IN_FRAMEWORKS, "BGEM3FlagModel": "M3Encoder"})
