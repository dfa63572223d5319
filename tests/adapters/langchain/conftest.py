"""What the LangChain tests share: one tiny model, six documents, and callbacks that remember."""

import threading
from pathlib import Path
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document

from m3_retrievers import M3Encoder
from m3_retrievers.types.representations import Representations

TEXTS = (
    "The river rose three metres overnight.",
    "A librarian finds the one page that matters.",
    "The bridge over the river was closed before dawn.",
    "Hybrid retrieval adds a dense score and a lexical score.",
    "How do I read a file row by row?",
    "She repaired the old clock with the tweezers.",
)


class GatedEncoder(M3Encoder):
    """A model whose encoding waits for a gate, so that a test can look while it waits."""

    gate: threading.Event

    def _wait(self) -> None:
        assert self.gate.wait(timeout=20), "nobody opened the gate: the event loop was blocked"

    def encode_query(self, text: str, **options: Any) -> Representations:
        self._wait()
        return super().encode_query(text, **options)

    def encode_documents(self, texts: Any, **options: Any) -> Representations:
        self._wait()
        return super().encode_documents(texts, **options)


class Runs(BaseCallbackHandler):
    """Remembers every retriever run: name, tags, parent, and the documents it ended with."""

    def __init__(self) -> None:
        self.started: dict[Any, dict[str, Any]] = {}
        self._lock = threading.Lock()

    def on_retriever_start(
        self, serialized: Any, query: str, *, run_id: Any, parent_run_id: Any = None, **rest: Any
    ) -> None:
        with self._lock:
            self.started[run_id] = {
                "name": rest.get("name"),
                "tags": rest.get("tags") or [],
                "metadata": rest.get("metadata") or {},
                "parent": parent_run_id,
                "query": query,
            }

    def on_retriever_end(self, documents: Any, *, run_id: Any, **rest: Any) -> None:
        self.started[run_id]["documents"] = documents

    @property
    def root(self) -> Any:
        (root,) = (id for id, run in self.started.items() if run["parent"] is None)
        return root

    @property
    def children(self) -> list[dict[str, Any]]:
        return [run for run in self.started.values() if run["parent"] == self.root]


@pytest.fixture(scope="session")
def encoder(tiny_m3: Path) -> M3Encoder:
    return M3Encoder.from_pretrained(tiny_m3)


@pytest.fixture(scope="session")
def documents() -> tuple[Document, ...]:
    return tuple(
        Document(id=str(n), page_content=text, metadata={"n": n, "even": n % 2 == 0})
        for n, text in enumerate(TEXTS)
    )


@pytest.fixture
def runs() -> Runs:
    return Runs()


@pytest.fixture
def gated(tiny_m3: Path) -> GatedEncoder:
    """A model with its gate open; ``gate.clear()`` closes it."""
    encoder = GatedEncoder.from_pretrained(tiny_m3)
    assert isinstance(encoder, GatedEncoder)
    encoder.gate = threading.Event()
    encoder.gate.set()
    return encoder
