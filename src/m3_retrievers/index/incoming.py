"""Representations on their way into an index: whether they fit the records and what is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from m3_retrievers.errors import InputError
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
    for name, width in widths.items():
        if width != held.get(name, width):
            raise InputError(
                f"This index holds {name} representations of width {held[name]}, got {width}. "
                "Encode with the model and settings it was built with."
            )
        value = getattr(representations, name)
        numbers = {"sparse": "data", "colbert": "vectors"}.get(name)
        if not np.all(np.isfinite(getattr(value, numbers) if numbers else value)):
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


def widths_of(representations: Representations, stored: Sequence[Output]) -> dict[str, int]:
    """Return the width of each of these outputs: the dimension, or the vocabulary's size."""
    widths: dict[str, int] = {}
    for name in stored:
        value = representations.require(name)
        widths[name] = int(value.dimension if name == "colbert" else value.shape[1])
    return widths
