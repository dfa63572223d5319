"""What an accelerator does in another order than a processor, and comes to the same."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from m3_retrievers import M3Encoder
from m3_retrievers.encoder import collect
from m3_retrievers.encoder.collect import Arrivals
from m3_retrievers.encoder.forward import Pass


def test_a_result_is_taken_in_when_the_next_one_is_on_its_way(monkeypatch):
    """And not before its copy is done; the last one at the end."""
    happened: list[str] = []

    class Event:
        def record(self) -> None:
            self.name = happened[-1].removeprefix("copy ")

        def synchronize(self) -> None:
            happened.append(f"wait {self.name}")

    monkeypatch.setattr(collect.torch.cuda, "Event", Event)

    def result(name: str) -> SimpleNamespace:
        def to_processor() -> str:
            happened.append(f"copy {name}")
            return name

        return SimpleNamespace(device_type="cuda", to_processor=to_processor)

    taken = SimpleNamespace(put=lambda rows, found: happened.append(f"put {found} {rows}"))
    arrivals = Arrivals(taken)
    arrivals.put("0-1", result("first"))
    assert happened == ["copy first"]
    arrivals.put("2-3", result("second"))
    arrivals.finish()
    arrivals.finish()
    assert happened == [
        "copy first", "copy second", "wait first", "put first 0-1", "wait second", "put second 2-3",
    ]  # fmt: skip


def test_what_is_on_the_processor_is_taken_in_at_once():
    taken: list[tuple[object, Pass]] = []
    arrivals = Arrivals(SimpleNamespace(put=lambda *given: taken.append(given)))
    result = Pass(torch.zeros(1, 2), None, None)
    arrivals.put(np.arange(1), result)
    assert taken[0][1] is result
    arrivals.finish()
    assert len(taken) == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("precision", "close"), [("fp32", 1e-4), ("fp16", 2e-2), ("bf16", 5e-2)])
def test_an_accelerator_finds_what_a_processor_does(tiny_m3, precision, close):
    texts = [("bees dance " * n).strip() for n in (1, 3, 3, 7, 40)]
    exact = M3Encoder.from_pretrained(tiny_m3, device="cpu").encode_documents(texts)
    found = M3Encoder.from_pretrained(
        tiny_m3, device="cuda", precision=precision, batch_tokens=64
    ).encode_documents(texts)
    np.testing.assert_allclose(found.dense, exact.dense, atol=close)
    np.testing.assert_allclose(found.sparse.toarray(), exact.sparse.toarray(), atol=close)
    np.testing.assert_allclose(found.colbert.vectors, exact.colbert.vectors, atol=close)
