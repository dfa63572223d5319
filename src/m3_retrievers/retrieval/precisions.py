"""In which precision an index was begun, and in which its queries are read.

An index of fp16 asked in fp32 is nothing to warn of: a GPU often makes what a processor searches.
It is worth knowing where scores are compared, so it is shown where an index is described.
"""

from __future__ import annotations

from m3_retrievers.encoder.base import Encoder
from m3_retrievers.index.base import Index, PersistentIndex
from m3_retrievers.index.local import LocalIndex


def precision_of(encoder: Encoder) -> str | None:
    """Return the numbers an encoder computes in, None for one that does not say."""
    found = getattr(encoder, "precision", None)
    return found if isinstance(found, str) else None


def noted_precision(index: Index) -> str | None:
    """Return the precision of the encoder that an index was first bound to, None if unknown."""
    model = index.model if isinstance(index, LocalIndex) else {}
    if isinstance(index, PersistentIndex):
        model = index.note().get("model", {})
    found = model.get("precision")
    return found if isinstance(found, str) else None


def difference(index: Index, encoder: Encoder) -> str | None:
    """Return in words that an index was made in another precision than it is asked in, or None."""
    noted, own = noted_precision(index), precision_of(encoder)
    if noted is None or own is None or noted == own:
        return None
    return f"made in {noted}, asked in {own}"
