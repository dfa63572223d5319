"""M3 retrieval for LangChain: the table of contents. Needs langchain-core and nothing else.

Names load on first use, so that a chain that only reranks does not load a store.
"""

import lazy_loader

from m3_retrievers.checks import require_package
from m3_retrievers.habits import guided_module
from m3_retrievers.langchain.names import OF_MODULE

require_package(
    "langchain-core", module="langchain_core", extra="langchain", purpose="m3_retrievers.langchain"
)

_lazy, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__getattr__ = guided_module(__name__, _lazy, OF_MODULE)
