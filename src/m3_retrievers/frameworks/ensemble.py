"""What an M3EnsembleRetriever is in either framework: two doors, and legs with names.

One door is a HybridRetriever; the other is a list of the framework's own retrievers, whose
findings are fused and then reordered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from m3_retrievers.errors import InputError
from m3_retrievers.scoring.fusion import ReciprocalRankFusion

Leg = TypeVar("Leg")

# RRF reads ranks alone: the scores of foreign retrievers have no scale in common.
FOREIGN_FUSION = ReciprocalRankFusion()


def check_doors(
    hybrid: object | None,
    retrievers: Sequence[object] | None,
    *,
    first: str,
    made_by: str,
    foreign_only: Mapping[str, object],
) -> None:
    """Raise InputError unless one door is taken, and only with options that belong to it.

    first, made_by: how the framework spells the first door, and the method that goes through
        it, for the error. foreign_only: options by name, None where not given, that go with
        ``retrievers`` alone.
    """
    if (hybrid is None) == (not retrievers):
        raise InputError(
            f"M3EnsembleRetriever expects either {first} or a list retrievers=, got "
            f"{hybrid!r} and {retrievers!r}. {made_by} makes the first."
        )
    misplaced = [name for name, given in foreign_only.items() if given is not None]
    if hybrid is not None and misplaced:
        raise InputError(
            f"{misplaced} belong to retrievers=, got with {first}, which orders its hits "
            "itself. Give fusion and weights to the HybridRetriever."
        )


def named_legs(legs: Iterable[Leg]) -> dict[str, Leg]:
    """Return foreign legs under the names that traces and a fusion's weights use.

    >>> named_legs(["chroma", "bm25"])
    {'retriever_1': 'chroma', 'retriever_2': 'bm25'}
    """
    return {f"retriever_{number}": leg for number, leg in enumerate(legs, start=1)}
