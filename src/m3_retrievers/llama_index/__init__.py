"""M3 retrieval for LlamaIndex: the table of contents. Needs llama-index-core and nothing else.

Names load on first use, so that a query engine that only reranks does not load a store.
"""

import lazy_loader

from m3_retrievers.checks import require_package
from m3_retrievers.habits import guided_module
from m3_retrievers.llama_index.names import OF_MODULE

require_package(
    "llama-index-core",
    module="llama_index",
    extra="llama-index",
    purpose="m3_retrievers.llama_index",
)

_lazy, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__getattr__ = guided_module(__name__, _lazy, OF_MODULE)
