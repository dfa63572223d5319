from .copying import copy as copy
from .durable import DurableIndex as DurableIndex
from .local import LocalIndex as LocalIndex
from .milvus import MilvusIndex as MilvusIndex
from .opening import open as open
from .pgvector import PgVectorIndex as PgVectorIndex
from .qdrant import QdrantIndex as QdrantIndex
