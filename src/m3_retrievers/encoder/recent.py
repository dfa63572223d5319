"""What was encoded last, kept so that the parts of one chain run the model once a text.

Embeddings, sparse embeddings and a reranker over somebody else's store each ask for the same
text, one output at a time. The first of them computes what the others will want: of a query
every output, of a document the dense and the sparse one, which cost next to nothing beside the
forward pass; ColBERT vectors of documents are kept where they were asked for.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, takewhile

from m3_retrievers.errors import InputError
from m3_retrievers.types.representations import ALL_OUTPUTS, Output, Representations


@dataclass(frozen=True, slots=True)
class Keep:
    """How much an encoder keeps of what it computed last.

    queries: how many, with all outputs (0.1 MB each for BGE-M3 at 20 tokens). document_bytes: of
    documents' rows and texts together; rows of the least recent go first. 0 keeps none.
    """

    queries: int = 256
    document_bytes: int = 64 * 2**20

    def __post_init__(self) -> None:
        for name in ("queries", "document_bytes"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise InputError(f"Keep expects {name} to be an integer ≥ 0, got {value!r:.40}.")


class Recent:
    """The rows computed last, by text and role, within bounds. Safe between threads."""

    def __init__(self, keep: Keep) -> None:
        self._keep = keep
        self._lock = threading.Lock()
        self._queries: OrderedDict[str, Representations] = OrderedDict()
        self._documents: OrderedDict[str, Representations] = OrderedDict()
        self.document_bytes = 0

    def found(
        self, texts: Sequence[str], outputs: Sequence[Output], *, query: bool
    ) -> dict[int, Representations]:
        """Return the rows that are kept with all of these outputs, by the text's place."""
        store = self._queries if query else self._documents
        found: dict[int, Representations] = {}
        with self._lock:
            for place, text in enumerate(texts):
                kept = store.get(text)
                if kept is not None and set(outputs) <= set(kept.outputs):
                    store.move_to_end(text)
                    found[place] = kept
        return {place: kept.select(outputs) for place, kept in found.items()}

    def take(self, texts: Sequence[str], computed: Representations, *, query: bool) -> None:
        """Keep the rows of different texts, the last of them where not all fit."""
        rows = list(range(len(texts)))
        if query:
            rows = rows[-self._keep.queries :] if self._keep.queries else []
        else:
            room = self._keep.document_bytes
            sizes = (_bytes_of(computed, row, texts[row]) for row in reversed(rows))
            fitting = sum(1 for _ in takewhile(lambda sum_: sum_ <= room, accumulate(sizes)))
            rows = rows[len(rows) - fitting :]
        taken = {texts[row]: computed[row] for row in rows}
        with self._lock:
            for text, one in taken.items():
                self._put_query(text, one) if query else self._put_document(text, one)

    def worth_computing(
        self, outputs: tuple[Output, ...], *, has: tuple[Output, ...], query: bool
    ) -> tuple[Output, ...]:
        """Return the outputs asked for, and those that are likely to be asked for next."""
        if not (self._keep.queries if query else self._keep.document_bytes):
            return outputs
        cheap = ALL_OUTPUTS if query else ("dense", "sparse")
        return tuple(name for name in has if name in outputs or name in cheap)

    def _put_query(self, text: str, row: Representations) -> None:
        self._queries[text] = row
        self._queries.move_to_end(text)
        while len(self._queries) > self._keep.queries:
            self._queries.popitem(last=False)

    def _put_document(self, text: str, row: Representations) -> None:
        before = self._documents.pop(text, None)
        if before is not None:
            self.document_bytes -= _bytes_of(before, 0, text)
        self._documents[text] = row
        self.document_bytes += _bytes_of(row, 0, text)
        while self.document_bytes > self._keep.document_bytes:
            old, gone = self._documents.popitem(last=False)
            self.document_bytes -= _bytes_of(gone, 0, old)


# What Python's own objects around a row take, measured with tracemalloc.
_OVERHEAD = 1_500


def _bytes_of(kept: Representations, row: int, text: str) -> int:
    """Return about how much memory one row takes, its text included."""
    size = _OVERHEAD + 4 * len(text)  # at most four bytes a character
    if kept.dense is not None:
        size += 4 * kept.dense.shape[1]
    if kept.sparse is not None:
        size += 12 * int(kept.sparse.indptr[row + 1] - kept.sparse.indptr[row])
    if kept.colbert is not None:
        count = int(kept.colbert.offsets[row + 1] - kept.colbert.offsets[row])
        size += count * kept.colbert.dimension * kept.colbert.vectors.itemsize
    return size
