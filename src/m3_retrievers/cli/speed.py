"""How fast each precision is on this machine, how far from float32, and which ``"auto"`` is."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from m3_retrievers.encoder.encoder import M3Encoder
from m3_retrievers.encoder.linear import can_quantize
from m3_retrievers.encoder.precision import PRECISIONS, Precision, choose_precision, why
from m3_retrievers.types.representations import Representations

_QUESTION = "how do I read a file row by row in python"
_PASSAGE = (
    "The river rose three metres overnight, and the bridge to the old library was closed until "
    "noon, so the page that everybody looked for was found a day later than it was asked for. "
)
# Passages of 1 to 4 such sentences, so that lengths differ as they do in a corpus.
_PASSAGES = tuple(f"{number} {_PASSAGE * (1 + number % 4)}" for number in range(16))
_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Speed:
    """One precision: median seconds, and what it changes beside float32 (None without one).

    cosine: the smallest of dense vectors. terms: the share of texts whose heaviest term is another.
    """

    precision: Precision
    query_ms: float
    texts_a_second: float
    cosine: float | None
    terms: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """All precisions that run on this device, and what ``"auto"`` takes."""

    speeds: tuple[Speed, ...]
    auto: Precision
    why: str

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)


def compare(encoder: M3Encoder) -> Comparison:
    """Return the speed of each precision, taking turns, so that a busy machine favours none."""
    encoders = {
        precision: M3Encoder(
            encoder.source,
            encoder.settings,
            device=encoder.device,
            precision=precision,
            keep=None,
        )
        for precision in _possible(encoder)
    }
    found = {name: one.encode_documents(_PASSAGES) for name, one in encoders.items()}
    queries: dict[Precision, list[float]] = {name: [] for name in encoders}
    passages: dict[Precision, list[float]] = {name: [] for name in encoders}
    for _ in range(_ROUNDS):
        for name, one in encoders.items():
            queries[name].append(_seconds(partial(one.encode_queries, [_QUESTION])))
            passages[name].append(_seconds(partial(one.encode_documents, _PASSAGES)))
    exact = found.get("fp32")
    speeds = tuple(
        Speed(
            name,
            1e3 * statistics.median(queries[name]),
            len(_PASSAGES) / statistics.median(passages[name]),
            _cosine(found[name], exact),
            _terms(found[name], exact),
        )
        for name in encoders
    )
    auto = choose_precision("auto", encoder.device)
    return Comparison(speeds, auto, why(auto, encoder.device))


def _possible(encoder: M3Encoder) -> tuple[Precision, ...]:
    """Return what is worth trying: a processor has no float16, and 8 bits need a plain encoder."""
    if encoder.device.type != "cpu":
        return tuple(one for one in PRECISIONS if one != "int8")
    packed = encoder.checkpoint.is_packed and can_quantize()
    return ("fp32", "bf16", "int8") if packed else ("fp32", "bf16")


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _cosine(found: Representations, exact: Representations | None) -> float | None:
    if exact is None or exact.dense is None or found.dense is None:
        return None
    return float((found.dense * exact.dense).sum(axis=1).min())


def _terms(found: Representations, exact: Representations | None) -> float | None:
    if exact is None or exact.sparse is None or found.sparse is None:
        return None
    first = [
        np.asarray(one.sparse.argmax(axis=1)) for one in (found, exact) if one.sparse is not None
    ]
    return float((first[0] != first[1]).mean())
