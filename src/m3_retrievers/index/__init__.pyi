from .local import LocalIndex as LocalIndex
from .pgvector.index import PgVectorIndex as PgVectorIndex
