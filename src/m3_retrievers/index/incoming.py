"""Representations on their way to an index: whether they fit the records and what is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import sparse as sp

from m3_retrievers.errors import InputError
from m3_retrievers.types.hits import Query
from m3_retrievers.types.packed import Floats, MultiVectors
from m3_retrievers.types.representations import Output, Representations


def check_representations(
    representations: Representations,
    *,
    stored: Sequence[Output],
    count: int,
    held: Mapping[str, int],
) -> dict[str, int]:
    """Return the width of each output that an index stores.

    stored: the outputs it keeps; others are passed over. count: the number of records. held:
    the widths of what is there already, by output.

    Raises MissingOutputError for an output that is not there, InputError for another number of
    rows, another width than the one held, NaN or infinity.
    """
    widths = widths_of(representations, stored)
    for name in stored:
        width = widths[name]
        if width != held.get(name, width):
            raise InputError(
                f"This index holds {name} representations of width {held[name]}, got {width}. "
                "Encode with the model and settings it was built with."
            )
        value = getattr(representations, name)
        if not np.all(np.isfinite(_numbers(value, name))):
            raise InputError(
                f"expected finite {name} representations, got NaN or infinity among them. "
                "Check the model's weights and dtype."
            )
    if stored and len(representations) != count:
        raise InputError(
            f"expected a row of representations for each of {count} records, got "
            f"{len(representations)}."
        )
    return widths


def check_query(query: Query, output: Output, *, held: Mapping[str, int]) -> None:
    """Raise unless a query can be asked in the mode of an output.

    held: the widths of what is there, by output. Raises MissingOutputError for an output that
    the query does not bring, InputError for several texts, another width, NaN or infinity.
    """
    asked = query.representations
    value = asked.require(output)
    if len(asked) != 1:
        raise InputError(
            f"A query expects the representations of one text, got {len(asked)}: pass one query a "
            "call."
        )
    width = widths_of(asked, [output])[output]
    if width != held.get(output, width):
        raise InputError(
            f"This index holds {output} representations of width {held[output]}, got a query of "
            f"{width}. Encode with the model and the settings it was built with."
        )
    if not np.all(np.isfinite(_numbers(value, output))):
        raise InputError(
            f"A query expects finite {output} representations, got NaN or infinity among them. "
            "Check the model's weights and dtype."
        )


def _numbers(value: Any, output: Output) -> Floats:
    """Return all numbers of an output as one array."""
    numbers = {"sparse": "data", "colbert": "vectors"}.get(output)
    held: Floats = getattr(value, numbers) if numbers else value
    return held


def no_rows(outputs: Sequence[Output], widths: Mapping[str, int]) -> Representations:
    """Return the given outputs of no texts; an output without a known width has 0."""
    width = {name: widths.get(name, 0) for name in outputs}
    return Representations(
        dense=np.zeros((0, width["dense"]), np.float32) if "dense" in width else None,
        sparse=_no_terms(width["sparse"]) if "sparse" in width else None,
        colbert=MultiVectors.from_rows([], dimension=width["colbert"])
        if "colbert" in width
        else None,
    )


def _no_terms(width: int) -> sp.csr_array:
    return sp.csr_array(np.zeros((0, width), np.float32))


def widths_of(representations: Representations, stored: Sequence[Output]) -> dict[str, int]:
    """Return the width of each of these outputs: the dimension, or the vocabulary's size."""
    widths: dict[str, int] = {}
    for name in stored:
        value = representations.require(name)
        widths[name] = int(value.dimension if name == "colbert" else value.shape[1])
    return widths
