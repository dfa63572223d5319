"""The table of contents of the index room, and what importing it costs."""

import subprocess
import sys

import pytest

import m3_retrievers.index as room


def test_contents():
    assert room.__all__ == [
        "DurableIndex",
        "LocalIndex",
        "MilvusIndex",
        "PgVectorIndex",
        "QdrantIndex",
        "QdrantStorage",
        "copy",
        "open",
    ]
    assert all(getattr(room, name).__name__ == name for name in room.__all__)
    with pytest.raises(AttributeError, match="MongoIndex"):
        _ = room.MongoIndex


def test_the_names_of_all_homes_load_no_engine():
    engines = ["qdrant_client", "qdrant_edge", "pymilvus", "milvus_lite", "psycopg", "grpc"]
    code = (
        f"import sys, m3_retrievers.index as room; [getattr(room, name) for name in room.__all__];"
        f"print([name for name in {engines} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
