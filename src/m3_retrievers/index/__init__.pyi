from .local import LocalIndex as LocalIndex
from .qdrant.home import QdrantIndex as QdrantIndex
from .qdrant.options import QdrantStorage as QdrantStorage
