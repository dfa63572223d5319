"""What the LlamaIndex tests share: one tiny model, six nodes, and handlers that remember."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.callbacks import CallbackManager, LlamaDebugHandler
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode

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


class Events(BaseEventHandler):
    """Remembers every event of LlamaIndex's instrumentation, in order."""

    seen: list[BaseEvent] = []  # noqa: RUF012 (pydantic copies it)

    @classmethod
    def class_name(cls) -> str:
        return "Events"

    def handle(self, event: BaseEvent, **_: Any) -> None:
        self.seen.append(event)

    def of(self, kind: type[BaseEvent]) -> list[Any]:
        return [event for event in self.seen if type(event) is kind]


def make_nodes() -> list[TextNode]:
    """Six nodes of two documents, whose metadata the model does not read."""
    return [
        TextNode(
            id_=str(n),
            text=text,
            metadata={"n": n, "even": "yes" if n % 2 == 0 else "no"},
            excluded_embed_metadata_keys=["n", "even"],
            relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=f"doc-{n // 3}")},
        )
        for n, text in enumerate(TEXTS)
    ]


@pytest.fixture(scope="session")
def encoder(tiny_m3: Path) -> M3Encoder:
    return M3Encoder.from_pretrained(tiny_m3)


@pytest.fixture
def nodes() -> list[TextNode]:
    return make_nodes()


@pytest.fixture
def events() -> Iterator[Events]:
    handler, root = Events(), get_dispatcher()
    root.add_event_handler(handler)
    yield handler
    root.event_handlers.remove(handler)


@pytest.fixture
def callbacks() -> CallbackManager:
    """A callback manager; ``callbacks.handlers[0]`` remembers what it was told."""
    return CallbackManager([LlamaDebugHandler(print_trace_on_end=False)])


@pytest.fixture
def gated(tiny_m3: Path) -> GatedEncoder:
    """A model with its gate open; ``gate.clear()`` closes it."""
    encoder = GatedEncoder.from_pretrained(tiny_m3)
    assert isinstance(encoder, GatedEncoder)
    encoder.gate = threading.Event()
    encoder.gate.set()
    return encoder
