from .local import LocalIndex as LocalIndex
from .pgvector.index import PgVectorIndex as PgVectorIndex
from .qdrant.home import QdrantIndex as QdrantIndex
from .qdrant.options import QdrantStorage as QdrantStorage
