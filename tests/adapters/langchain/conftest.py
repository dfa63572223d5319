"""What the LangChain tests share: one tiny model, six documents, and callbacks that remember."""

import threading
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document

from sentences import SIX


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
def documents() -> tuple[Document, ...]:
    return tuple(
        Document(id=str(n), page_content=text, metadata={"n": n, "even": n % 2 == 0})
        for n, text in enumerate(SIX)
    )


@pytest.fixture
def runs() -> Runs:
    return Runs()
