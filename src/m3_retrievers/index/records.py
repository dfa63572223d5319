"""A record as an index keeps it: its metadata as JSON gives it back."""

from __future__ import annotations

import json

from m3_retrievers.errors import InputError
from m3_retrievers.types.hits import Record


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
