"""From one home to another: records with what was computed of them, nothing encoded again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from m3_retrievers.checks import check_k
from m3_retrievers.errors import InputError, MissingOutputError
from m3_retrievers.index.base import Index, PersistentIndex
from m3_retrievers.index.local import LocalIndex
from m3_retrievers.index.opening import open as open_index
from m3_retrievers.index.opening import parse_address
from m3_retrievers.types.representations import ALL_OUTPUTS, Output, Representations


def copy(
    source: Index | str | Path,
    target: Index | str | Path,
    *,
    batch_size: int = 256,
    show_progress: bool = False,
) -> int:
    """Copy an index's records, vectors and note into another; returns how many documents.

    source, target: indexes, or addresses as ``open`` takes them; a target that is an address is
    made, with the source's modes. The order of insertion stays, and the target is bound to the
    source's model with the retriever's plan. A copy that was interrupted goes on where it stood:
    a target may hold documents of the source, and no others. The source must not change
    meanwhile. BM25's statistics are not copied: a target with that mode counts the texts anew.

    Raises InputError for a target with other documents, IndexModelError for one of another
    model, MissingOutputError for one that keeps what the source does not.
    """
    check_k(batch_size, name="batch_size")
    with ExitStack() as held:
        given = held.enter_context(_opened(source, modes=None, create=False))
        outputs: list[Output] = [name for name in ALL_OUTPUTS if name in given.modes]
        made = held.enter_context(_opened(target, modes=outputs, create=True))
        wanted: list[Output] = [name for name in ALL_OUTPUTS if name in made.modes]
        if lacking := [name for name in wanted if name not in outputs]:
            raise MissingOutputError(
                f"expected a source that keeps {lacking} like the target, got one that keeps "
                f"{sorted(outputs)}. Copy into a new index, or index the documents again."
            )
        ids = given.where(None)
        there = _there(given, made, ids)
        _bind(made, _note_of(given))
        rest = [id for id in ids if id not in there]
        with tqdm(
            total=len(ids), initial=len(there), disable=not show_progress, desc="copy", unit="doc"
        ) as bar:
            for at in range(0, len(rest), batch_size):
                batch = rest[at : at + batch_size]
                with given.snapshot():
                    records = given.get(batch)
                    kept = [record.id for record in records]
                    vectors = given.vectors(kept, outputs=wanted) if wanted else Representations()
                made.add(records, vectors)
                bar.update(len(batch))
        return len(rest)


@contextmanager
def _opened(
    index: Index | str | Path, *, modes: list[Output] | None, create: bool
) -> Iterator[Index]:
    """Give an index, and close it afterwards where it was opened here."""
    if not isinstance(index, str | Path):
        yield index
        return
    if create and parse_address(index).snapshot:
        raise InputError(
            f"copy expects a target that keeps its changes, got {str(index)!r}, a folder that save "
            "wrote. Copy into a file, and into a LocalIndex to save it."
        )
    opened = open_index(index, modes=modes, create=create)
    try:
        yield opened
    finally:
        if isinstance(opened, PersistentIndex):
            opened.close()


def _there(source: Index, target: Index, ids: list[str]) -> set[str]:
    """Return the source's documents that the target has; InputError where it has others."""
    there = target.where(None)
    known = set(ids)
    other = next((id for id in there if id not in known), None)
    if other is None and there:
        # of an interrupted copy the last documents are the likeliest to differ
        sample = [*there[:10], *there[-10:]]
        pairs = zip(source.get(sample), target.get(sample), strict=True)
        other = next((mine.id for mine, its in pairs if mine != its), None)
    if other is not None:
        raise InputError(
            f"copy expects an empty target, or one that an interrupted copy left, got one with "
            f"{other!r:.60}, which the source does not have as it is there. Choose another target, "
            "or delete what is in it."
        )
    return set(there)


def _note_of(index: Index) -> Mapping[str, Any]:
    """Return the model that an index is bound to and the JSON kept beside it, where there are."""
    if isinstance(index, LocalIndex):
        return {"model": index.model, "extra": index.extra}
    return index.note() if isinstance(index, PersistentIndex) else {}


def _bind(index: Index, note: Mapping[str, Any]) -> None:
    model = note.get("model")
    if model and isinstance(index, PersistentIndex):
        index.bind(model, extra=note.get("extra", {}))
    elif isinstance(index, LocalIndex):
        index.extra, index.model = dict(note.get("extra", {})), dict(model or {})
