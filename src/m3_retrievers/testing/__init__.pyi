from .index_contract import IndexContract as IndexContract
