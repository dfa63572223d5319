"""Documents on their way into an index: checked, encoded and stored, a chunk at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

from tqdm.auto import tqdm

from m3_retrievers.encoder.encoder import M3Encoder
from m3_retrievers.errors import DuplicateIdError
from m3_retrievers.hybrid.settings import encoded_modes
from m3_retrievers.index.base import Index
from m3_retrievers.records import check_k
from m3_retrievers.representations import Record, Representations


def store(
    index: Index,
    encoder: M3Encoder,
    records: Iterable[Record],
    *,
    replace: bool,
    chunk_size: int,
    show_progress: bool,
) -> list[str]:
    """Encode records with what the index keeps, store them, and return their ids.

    records: a list is checked whole before anything is encoded, a generator chunk by chunk.
    replace: whether records whose id is known take the old one's place. An interruption
    leaves all finished chunks in the index.

    Raises DuplicateIdError for an id given twice, or known and not to be replaced.
    """
    check_k(chunk_size, name="chunk_size")
    total = None
    if isinstance(records, Sequence):
        total = len(records)
        _check_ids(records, index, replace=replace)
    outputs = encoded_modes(index.modes)
    put = index.upsert if replace else index.add
    stored: list[str] = []
    source = iter(records)
    with tqdm(total=total, disable=not show_progress, desc="index", unit="doc") as bar:
        while chunk := list(islice(source, chunk_size)):
            _check_ids(chunk, index, replace=replace)
            texts = [record.text for record in chunk]
            encoded = (
                encoder.encode_documents(texts, outputs=outputs) if outputs else Representations()
            )
            put(chunk, encoded)
            stored += [record.id for record in chunk]
            bar.update(len(chunk))
    return stored


def _check_ids(records: Sequence[Record], index: Index, *, replace: bool) -> None:
    seen: set[str] = set()
    for id in (record.id for record in records):
        if id in seen:
            raise DuplicateIdError(f"ids expects each id once, got {id!r} twice.")
        if not replace and id in index:
            raise DuplicateIdError(
                f"add expects new ids, got {id!r}, which is in the index. "
                "Use upsert to replace it, or another id."
            )
        seen.add(id)
