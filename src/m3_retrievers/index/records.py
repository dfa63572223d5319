"""A record as an index keeps it: its metadata as JSON gives it back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from m3_retrievers.errors import InputError
from m3_retrievers.index.values import fault_of, shown
from m3_retrievers.types.hits import Record


def stored_record(record: Record) -> Record:
    """Return a copy of a record, its metadata as JSON keeps it (a tuple comes back as a list).

    Raises InputError for what JSON does not hold: other types, NaN and infinities, integers of
    more than 4,300 digits, keys that are no strings; and for nesting of more than 100 levels.
    """
    if not isinstance(record.id, str) or not isinstance(record.text, str):
        raise InputError(
            f"expected records with a string id and text, got id {shown(record.id, most=60)} and "
            f"text {shown(record.text, most=60)}."
        )
    if not isinstance(record.metadata, Mapping):
        raise InputError(
            f"metadata expects a mapping such as {{'year': 2024}}, got {shown(record.metadata)} "
            f"for document {record.id!r:.60}. Pass {{}} for a document without any."
        )
    kept = {}
    for key, value in record.metadata.items():
        if not isinstance(key, str):
            raise InputError(
                f"metadata expects string keys, got {shown(key, most=60)} in document "
                f"{record.id!r:.60}. Turn it into a string first."
            )
        if fault := fault_of(value, depth=1):
            raise _refused(record, key, value, fault)
        try:
            kept[key] = json.loads(json.dumps(value, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise _refused(record, key, value, str(error)) from error
    return Record(record.id, record.text, kept)


def _refused(record: Record, key: str, value: object, fault: str) -> InputError:
    return InputError(
        f"metadata expects JSON values, got {shown(value, most=60)} under {key!r:.60} of document "
        f"{record.id!r:.60} ({fault}). Turn it into a string or a number first, or into None "
        "where a value is missing."
    )


def check_records(records: Sequence[Record]) -> Sequence[Record]:
    """Return the records; InputError for what is no list of them."""
    if isinstance(records, str | Mapping) or not isinstance(records, Sequence):
        raise InputError(f"An index expects a list of Records, got {records!r:.80}.")
    for position, record in enumerate(records):
        if not isinstance(record, Record):
            raise InputError(
                f"An index expects Records, got {type(record).__name__} ({record!r:.60}) at "
                f"position {position}. Make one with Record(id, text, metadata), or add texts "
                "through a HybridRetriever."
            )
    return records
