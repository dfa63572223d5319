"""The table of contents of the LangChain room, and what importing it costs."""

import subprocess
import sys

import pytest

import m3_retrievers.langchain as room
from m3_retrievers.checks import require_package
from m3_retrievers.errors import MissingExtraError


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout.strip()


def test_contents() -> None:
    assert room.__all__ == [
        "BM25Retriever",
        "M3ColbertReranker",
        "M3DocumentIndex",
        "M3Embeddings",
        "M3EnsembleRetriever",
        "M3HybridReranker",
        "M3SparseEmbeddings",
        "M3SparseRetriever",
        "M3Translator",
        "M3VectorStore",
        "SpladeRetriever",
    ]
    assert [name for name in dir(room) if not name.startswith("__")] == room.__all__
    assert all(getattr(room, name).__name__ == name for name in room.__all__)


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match=r"m3_retrievers\.langchain.*M3Nothing"):
        _ = room.M3Nothing


def test_importing_the_room_loads_neither_torch_nor_langchain() -> None:
    loaded = run(
        "import sys, m3_retrievers.langchain\n"
        "print(sorted({'torch', 'langchain_core', 'transformers'} & set(sys.modules)))"
    )
    assert loaded == "[]"


@pytest.mark.slow
def test_the_room_needs_langchain_core_alone() -> None:
    others = run(
        "import sys, m3_retrievers.langchain as room\n"
        "for name in room.__all__: getattr(room, name)\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'langchain',\n"
        "    'langchain_classic', 'langchain_milvus', 'langchain_qdrant', 'llama_index'}))"
    )
    assert others == "[]"


def test_without_langchain_core_the_error_holds_the_pip_command() -> None:
    message = run(
        "import sys; sys.modules['langchain_core'] = None\n"
        "from m3_retrievers.errors import MissingExtraError\n"
        "try:\n    import m3_retrievers.langchain\n"
        "except MissingExtraError as error:\n    print(error)"
    )
    assert 'pip install "m3-retrievers[langchain]"' in message


def test_require_package_passes_what_is_installed() -> None:
    require_package("numpy", module="numpy", extra="all", purpose="x")
    with pytest.raises(MissingExtraError, match=r"x needs the package 'no-such'"):
        require_package("no-such", module="no_such_module", extra="all", purpose="x")
