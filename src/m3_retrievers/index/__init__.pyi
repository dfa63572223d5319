from .copying import copy as copy
from .durable.index import DurableIndex as DurableIndex
from .local import LocalIndex as LocalIndex
from .milvus.index import MilvusIndex as MilvusIndex
from .opening import open as open
from .pgvector.index import PgVectorIndex as PgVectorIndex
from .qdrant.home import QdrantIndex as QdrantIndex
from .qdrant.options import QdrantStorage as QdrantStorage
