"""What callers hand in, checked before anything is done with it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from uuid import uuid4

import numpy as np

from m3_retrievers.errors import InputError
from m3_retrievers.representations import Metadata, Record


def check_k(k: int, *, name: str = "k") -> None:
    """Raise InputError unless k is an integer of at least 1."""
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise InputError(f"{name} expects an integer of at least 1, got {k!r}.")


def check_ids(ids: Iterable[str], *, name: str) -> None:
    """Raise InputError where ids are one string, whose letters would be taken for ids."""
    if isinstance(ids, str):
        raise InputError(f"{name} expects a list of ids, got one string {ids!r}: wrap it.")


def check_no_others(options: Mapping[str, object], *, owner: str) -> None:
    """Refuse what a framework's ``**kwargs`` lets through: an ignored option misleads."""
    if options:
        raise InputError(
            f"{owner} got options it does not know: {sorted(options)}. Leave them out."
        )


def records_of(
    texts: Iterable[str | Record],
    ids: Iterable[str] | None,
    metadata: Iterable[Metadata] | None,
) -> Iterator[Record]:
    """Yield checked records; an id is made up and metadata is empty where none is given.

    texts: strings, or records, which bring id and metadata with them.
    """
    if isinstance(texts, str):
        raise InputError(f"expected a list of texts, got one string ({texts[:40]!r}): wrap it.")
    if ids is not None:
        check_ids(ids, name="ids")
    if isinstance(metadata, Mapping):
        raise InputError(
            f"metadata expects a list with one mapping a text, got one mapping {metadata!r:.60}: "
            "wrap it."
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
        if not isinstance(id, str) or not isinstance(about, Mapping):
            raise InputError(
                "expected a string id and a metadata mapping for each text, got "
                f"{id!r:.60} and {about!r:.60} at position {position}."
            )
        yield Record(id, text, about)


def _remedy(text: object) -> str:
    if isinstance(text, Record):
        return "Records have an id and metadata of their own: leave ids= and metadata= out."
    if hasattr(text, "page_content") or hasattr(text, "get_content"):
        return "A framework's documents go through m3_retrievers.langchain or .llama_index."
    return "Drop it or turn it into a string first."


def stored_record(record: Record) -> Record:
    """Return a copy of a record, its metadata as JSON keeps it; InputError for what is no JSON."""
    if not isinstance(record.id, str) or not isinstance(record.text, str):
        raise InputError(
            f"expected records with a string id and text, got id {record.id!r:.60} and text "
            f"{record.text!r:.60}."
        )
    kept = {}
    for key, value in record.metadata.items():
        try:
            kept[key] = json.loads(json.dumps(value))
        except (TypeError, ValueError) as error:
            raise InputError(
                f"metadata expects JSON values, got {value!r:.60} under {key!r} of document "
                f"{record.id!r} ({error}). Turn it into a string or a number first."
            ) from error
        if not isinstance(key, str):
            raise InputError(
                f"metadata expects string keys, got {key!r:.60} in document {record.id!r}."
            )
    return Record(record.id, record.text, kept)
