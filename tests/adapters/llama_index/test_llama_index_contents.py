"""The table of contents of the LlamaIndex room, what importing it costs, and whose children."""

import subprocess
import sys

import pytest
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.base.embeddings.base_sparse import BaseSparseEmbedding
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.vector_stores.types import BasePydanticVectorStore

import m3_retrievers.llama_index as room


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout.strip()


def test_contents() -> None:
    assert room.__all__ == [
        "BM25Retriever",
        "M3ColbertRerank",
        "M3Embedding",
        "M3EnsembleRetriever",
        "M3HybridRerank",
        "M3SparseEmbedding",
        "M3SparseRetriever",
        "M3VectorStore",
        "SpladeRetriever",
    ]
    assert [name for name in dir(room) if not name.startswith("__")] == room.__all__
    assert all(getattr(room, name).__name__ == name for name in room.__all__)
    with pytest.raises(AttributeError, match=r"m3_retrievers\.llama_index.*M3Nothing"):
        _ = room.M3Nothing


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("BM25Retriever", BaseRetriever),
        ("M3SparseRetriever", BaseRetriever),
        ("M3EnsembleRetriever", BaseRetriever),
        ("M3Embedding", BaseEmbedding),
        ("M3SparseEmbedding", BaseSparseEmbedding),
        ("M3ColbertRerank", BaseNodePostprocessor),
        ("M3HybridRerank", BaseNodePostprocessor),
        ("M3VectorStore", BasePydanticVectorStore),
    ],
)
def test_base_class_is_in_the_mro(name: str, base: type) -> None:
    made = getattr(room, name)
    assert base.__name__ in [kind.__name__ for kind in made.__mro__]
    if hasattr(made, "class_name"):
        assert made.class_name() == name


def test_importing_the_room_loads_neither_torch_nor_llama_index() -> None:
    loaded = run(
        "import sys, m3_retrievers.llama_index\n"
        "print(sorted({'torch', 'llama_index', 'transformers'} & set(sys.modules)))"
    )
    assert loaded == "[]"


@pytest.mark.slow
def test_the_room_needs_llama_index_core_alone() -> None:
    others = run(
        "import sys, m3_retrievers.llama_index as room\n"
        "for name in room.__all__: getattr(room, name)\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'langchain',\n"
        "    'langchain_core', 'pymilvus', 'qdrant_client', 'openai'}))"
    )
    assert others == "[]"


def test_without_llama_index_the_error_holds_the_pip_command() -> None:
    message = run(
        "import sys; sys.modules['llama_index'] = None\n"
        "from m3_retrievers.errors import MissingExtraError\n"
        "try:\n    import m3_retrievers.llama_index\n"
        "except MissingExtraError as error:\n    print(error)"
    )
    assert 'pip install "m3-retrievers[llama-index]"' in message
