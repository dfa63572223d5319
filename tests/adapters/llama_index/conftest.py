"""What the LlamaIndex tests share: one tiny model, six nodes, and handlers that remember."""

from collections.abc import Iterator
from typing import Any

import pytest
from llama_index.core.callbacks import CallbackManager, LlamaDebugHandler
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode

from sentences import SIX


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
        for n, text in enumerate(SIX)
    ]


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
