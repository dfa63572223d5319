"""An index in Milvus Lite, a Milvus server or a cluster."""

from m3_retrievers.index.milvus.index import MilvusIndex as MilvusIndex

__all__ = ["MilvusIndex"]
