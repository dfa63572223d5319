"""Functions compiled by numba, kept on disk for the next process; imported where numba is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Return a decorator that compiles a function, which runs without Python's lock.

    The machine code is kept beside the source or in the user's cache, for this processor, where
    one of them can be written to.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        try:
            return njit(nogil=True, cache=True, **options)(function)
        except RuntimeError:  # numba found no place to keep it
            return njit(nogil=True, **options)(function)

    return decorate
