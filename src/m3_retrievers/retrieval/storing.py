"""Documents on their way into an index: checked, encoded and stored, a batch at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from itertools import islice
from uuid import uuid4

from tqdm.auto import tqdm

from m3_retrievers.checks import check_ids, check_k, check_known, check_new
from m3_retrievers.encoder.base import Encoder
from m3_retrievers.errors import DuplicateIdError, InputError
from m3_retrievers.index.base import Index
from m3_retrievers.types.hits import Metadata, Record
from m3_retrievers.types.plan import encoded_modes
from m3_retrievers.types.representations import Output, Representations


def store(
    index: Index,
    encoder: Encoder,
    records: Iterable[Record],
    *,
    replace: bool,
    batch_size: int,
    show_progress: bool,
) -> list[str]:
    """Encode records with what the index keeps, store them, and return their ids.

    records: a list is checked whole before anything is encoded, a generator batch by batch.
    replace: whether records whose id is known take the old one's place. An interruption
    leaves all finished batches in the index.

    Raises DuplicateIdError for an id given twice, or known and not to be replaced.
    """
    check_k(batch_size, name="batch_size")
    total = None
    if isinstance(records, Sequence):
        total = len(records)
        _check_new(records, index, seen=set(), replace=replace)
    outputs = encoded_modes(index.modes)
    put = index.upsert if replace else index.add
    seen: set[str] = set()
    stored: list[str] = []
    source = iter(records)
    with tqdm(total=total, disable=not show_progress, desc="index", unit="doc") as bar:
        while batch := list(islice(source, batch_size)):
            _check_new(batch, index, seen=seen, replace=replace)
            texts = [record.text for record in batch]
            encoded = (
                encoder.encode_documents(texts, outputs=outputs) if outputs else Representations()
            )
            put(batch, encoded)
            stored += [record.id for record in batch]
            bar.update(len(batch))
    return stored


def _check_new(records: Sequence[Record], index: Index, *, seen: set[str], replace: bool) -> None:
    """Raise DuplicateIdError for an id among those seen, or known; ``seen`` takes the others."""
    ids = [record.id for record in records]
    for id in ids:
        if id in seen:
            raise DuplicateIdError(f"ids expects each id once, got {id!r:.80} twice.")
        seen.add(id)
    if not replace:
        # all at once: an engine answers a request as fast for many ids as for one
        check_new(ids, set(index.in_order(ids)))


def as_records(
    texts: Iterable[str | Record],
    ids: Iterable[str] | None,
    metadata: Iterable[Metadata] | None,
) -> Iterable[Record]:
    """Return checked records: of a list a list, of a generator a generator.

    texts: strings, or records, which bring id and metadata with them. An id is made up, and
    metadata is empty, where none is given.
    """
    records = _records(texts, ids, metadata)
    return list(records) if isinstance(texts, Sequence) else records


def _records(
    texts: Iterable[str | Record],
    ids: Iterable[str] | None,
    metadata: Iterable[Metadata] | None,
) -> Iterator[Record]:
    if isinstance(texts, str):
        raise InputError(f"expected a list of texts, got one string ({texts[:40]!r}): wrap it.")
    if isinstance(texts, Mapping | Set) or not isinstance(texts, Iterable):
        raise InputError(f"expected a list of texts, got {texts!r:.80}. Pass strings in a list.")
    if ids is not None and (isinstance(ids, str) or not isinstance(ids, Iterable)):
        check_ids(ids, name="ids")  # which says what is wrong
    if metadata is not None and (
        isinstance(metadata, Mapping | str) or not isinstance(metadata, Iterable)
    ):
        raise InputError(
            f"metadata expects a list with one mapping a text, got {metadata!r:.60}. Wrap it."
        )
    for name, other in (("ids", ids), ("metadata", metadata)):
        sized = isinstance(texts, Sequence) and isinstance(other, Sequence)
        if sized and len(texts) != len(other):  # type: ignore[arg-type]
            raise InputError(
                f"{name} expects one entry a text, got {len(other)} for {len(texts)} texts."  # type: ignore[arg-type]
            )
    id_source = iter(ids) if ids is not None else iter(lambda: str(uuid4()), None)
    metadata_source = iter(metadata) if metadata is not None else iter(dict, None)
    for position, text in enumerate(texts):
        if isinstance(text, Record) and ids is None and metadata is None:
            yield text
            continue
        if not isinstance(text, str):
            raise InputError(
                f"expected texts that are strings, got {type(text).__name__} ({text!r:.60}) at "
                f"position {position}. {_remedy(text)}"
            )
        id, about = next(id_source, None), next(metadata_source, None)
        if not isinstance(id, str):
            raise InputError(
                f"ids expects a string for each text, got {id!r:.60} at position {position}. "
                "Write str(id)."
            )
        if not isinstance(about, Mapping):
            raise InputError(
                f"metadata expects a mapping for each text, got {about!r:.60} at position "
                f"{position}. Give {{}} for a text that has none."
            )
        yield Record(id, text if type(text) is str else str(text), about)


def _remedy(text: object) -> str:
    if isinstance(text, Record):
        return "Records have an id and metadata of their own: leave ids= and metadata= out."
    if hasattr(text, "page_content") or hasattr(text, "get_content"):
        return "A framework's documents go through m3_retrievers.langchain or .llama_index."
    return "Drop it or turn it into a string first."


def stored_vectors(
    index: Index, encoder: Encoder, ids: Sequence[str], outputs: Sequence[Output] | None
) -> Representations:
    """Return what the index keeps of documents; where it lacks an output, encode them again."""
    if outputs is None or index.modes.issuperset(outputs):
        return index.vectors(ids, outputs=outputs)
    wanted = check_ids(ids, name="vectors")
    with index.snapshot():
        check_known(wanted, set(index.in_order(wanted)))
        texts = [record.text for record in index.get(wanted)]
    return encoder.encode_documents(texts, outputs=outputs)
