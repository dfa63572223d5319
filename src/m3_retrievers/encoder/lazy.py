"""A model that is loaded at its first use, once, whichever thread comes first."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Loaded = TypeVar("Loaded")


class Lazy(Generic[Loaded]):
    """Calls ``load`` at the first ``get``; the threads that come meanwhile wait for it."""

    def __init__(self, load: Callable[[], Loaded]) -> None:
        self._load = load
        self._lock = threading.Lock()
        self._value: Loaded | None = None

    @property
    def loaded(self) -> bool:
        """Whether it was loaded already."""
        return self._value is not None

    def get(self) -> Loaded:
        """Return what was loaded, after loading it if need be."""
        with self._lock:
            if self._value is None:
                self._value = self._load()
            return self._value

    def renew_lock(self) -> None:
        """Make the lock anew, in a child that was forked while another thread held it."""
        self._lock = threading.Lock()
