"""What all who open a collection have to agree on: outputs, widths, BM25, precision.

It is fixed by the first add, and kept in the collection's note beside the model's fingerprint.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from m3_retrievers.errors import InputError, SavedIndexError
from m3_retrievers.index.qdrant.options import QdrantStorage
from m3_retrievers.index.qdrant.requests import Layout
from m3_retrievers.index.qdrant.terms import EngineBM25
from m3_retrievers.types.representations import ALL_OUTPUTS, Output

_FORMAT = 1


@dataclass(frozen=True, slots=True, eq=False)
class Agreement:
    """What an index asks for, or, once there is a collection, what it holds.

    outputs, storage, average_length: None where nothing was asked for. bm25: the weights of
    the leg, None without one. widths: by output. made: whether there is a collection, whose
    outputs and widths these are.
    """

    outputs: tuple[Output, ...] | None
    storage: QdrantStorage | None
    bm25: EngineBM25 | None
    average_length: float | None
    widths: Mapping[str, int] = field(default_factory=dict)
    made: bool = False

    @property
    def stored(self) -> tuple[Output, ...]:
        """The outputs that are kept of each record."""
        return ALL_OUTPUTS if self.outputs is None else self.outputs

    @property
    def layout(self) -> Layout:
        """The collection as an engine makes it."""
        return Layout(self.widths, self.bm25 is not None, self.storage or QdrantStorage())

    def started(self, widths: Mapping[str, int], texts: Sequence[str]) -> Agreement:
        """Return it with all that a first add of these widths and texts fixes."""
        average = self.average_length
        if self.bm25 is not None and average is None:
            average = self.bm25.average(texts)
        return replace(
            self,
            outputs=self.stored,
            storage=self.storage or QdrantStorage(),
            average_length=average,
            widths=dict(widths),
        )

    def note(self) -> dict[str, Any]:
        """Return it as JSON, for the collection's note."""
        bm25 = self.bm25 and {**self.bm25.settings, "average_length": self.average_length}
        return {
            "format": _FORMAT,
            "outputs": list(self.stored),
            "widths": dict(self.widths),
            "storage": self.layout.storage.state(),
            "bm25": bm25,
        }

    def joined(self, note: Mapping[str, Any], place: str) -> Agreement:
        """Return what a collection's note says, of which everything that was asked for is true.

        Raises InputError where the two differ, SavedIndexError for a note of a newer version.
        """
        if note["format"] > _FORMAT:
            raise SavedIndexError(
                f"{place!r} has format {note['format']}, this m3-retrievers reads up to {_FORMAT}. "
                "Upgrade m3-retrievers."
            )
        kept = note["bm25"] or {}
        average = kept.get("average_length")
        outputs, storage = tuple(note["outputs"]), QdrantStorage(**note["storage"])
        held = {key: value for key, value in kept.items() if key != "average_length"}
        asked = json.loads(json.dumps(self.bm25.settings)) if self.bm25 else {}
        for name, wanted, there in (
            ("modes", None if self.outputs is None else set(self.outputs), set(outputs)),
            ("storage", self.storage, storage),
            ("average_length", self.average_length, average),
        ):
            if wanted is not None and wanted != there:
                raise _disagreement(place, name, there, wanted)
        if asked != held:
            raise _disagreement(place, "weighting", held or None, asked or None)
        return replace(
            self,
            outputs=outputs,
            storage=storage,
            average_length=average,
            widths=note["widths"],
            made=True,
        )


def _disagreement(place: str, name: str, there: object, wanted: object) -> InputError:
    if isinstance(there, set) and isinstance(wanted, set):
        there, wanted = sorted(there), sorted(wanted)
    return InputError(
        f"The collection {place!r} was made with {name} {there!r:.120}, got {wanted!r:.120}. Open "
        "it with what it was made with, or choose another collection=."
    )
