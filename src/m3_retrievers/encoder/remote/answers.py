"""Numbers out of a server's answer, believed only where they can be what was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m3_retrievers.encoder.remote.exchange import Answer


def rows_of(answer: Answer, found: object, count: int, *, what: str) -> list[Any]:
    """Return a list of so many entries; EncoderAnswerError for anything else."""
    if not isinstance(found, list) or len(found) != count:
        got = f"{len(found)}" if isinstance(found, list) else f"{type(found).__name__}"
        raise answer.wrong(f"a list of {count} {what}", got)
    return found


def numbers(
    answer: Answer, found: object, shape: Sequence[int | None], *, what: str
) -> NDArray[np.float32]:
    """Return a float32 array of this shape; None is an axis of any length but 0.

    Raises EncoderAnswerError for another shape, for what is no number, for NaN and infinity.
    """
    try:
        array = np.asarray(found)
        bad = array.dtype.kind not in "fiu"
    except ValueError:  # rows of different lengths
        bad = True
    if bad:
        raise answer.wrong(f"numbers ({what})", f"{str(found)[:60]!r}")
    fits = array.ndim == len(shape) and all(
        have == want if want is not None else have > 0
        for have, want in zip(array.shape, shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if axis is None else str(axis) for axis in shape)
        raise answer.wrong(f"{what} of shape ({wanted})", f"{array.shape}")
    if not np.isfinite(array).all():
        raise answer.wrong(f"finite numbers ({what})", "NaN or infinity")
    with np.errstate(over="ignore"):
        single = array.astype(np.float32)
    if not np.isfinite(single).all():
        raise answer.wrong(f"numbers that float32 holds ({what})", "larger ones")
    return single


def unit_rows(answer: Answer, rows: NDArray[np.float32], *, what: str) -> NDArray[np.float32]:
    """Return rows scaled to length 1; EncoderAnswerError for a row without a direction."""
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    if (lengths < 1e-12).any() or not np.isfinite(lengths).all():
        raise answer.wrong(f"{what} that have a direction", "a row of zeros")
    return np.asarray(rows / lengths, np.float32)
