"""What the tests of both frameworks share."""

import threading
from pathlib import Path
from typing import Any

import pytest

from m3_retrievers import M3Encoder
from m3_retrievers.types.representations import Representations


class GatedEncoder(M3Encoder):
    """A model whose encoding waits for a gate, so that a test can look while it waits."""

    gate: threading.Event

    def _wait(self) -> None:
        assert self.gate.wait(timeout=60), "nobody opened the gate: the event loop was blocked"

    def encode_query(self, text: str, **options: Any) -> Representations:
        self._wait()
        return super().encode_query(text, **options)

    def encode_documents(self, texts: Any, **options: Any) -> Representations:
        self._wait()
        return super().encode_documents(texts, **options)


@pytest.fixture
def gated(tiny_m3: Path) -> GatedEncoder:
    """A model with its gate open; ``gate.clear()`` closes it."""
    encoder = GatedEncoder.from_pretrained(tiny_m3)
    assert isinstance(encoder, GatedEncoder)
    encoder.gate = threading.Event()
    encoder.gate.set()
    return encoder
