"""A lock that a fork cannot tear: the child finds it free, and what it guards whole."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from itertools import count
from types import TracebackType
from weakref import WeakSet


class ForkSafeLock:
    """A re-entrant lock; a fork waits until no other thread holds it.

    Without this a child forked while another thread is searching would wait forever for a
    thread that it does not have, or see a change half done.
    """

    def __init__(self, *, before_fork: Callable[[], None] | None = None) -> None:
        """before_fork: called with the lock held, for what must not cross a fork."""
        self._lock = threading.RLock()
        self._number = next(_NUMBERS)
        self._before_fork = before_fork
        _LOCKS.add(self)

    def __enter__(self) -> ForkSafeLock:
        self._lock.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lock.release()


_NUMBERS = count()
_LOCKS: WeakSet[ForkSafeLock] = WeakSet()
_HELD: list[ForkSafeLock] = []
_FORKING = threading.Lock()  # two threads that fork take turns


def _acquire_all() -> None:
    _FORKING.acquire()
    # whoever takes two of them takes the older one first, and so must a fork
    _HELD.extend(sorted(_LOCKS, key=lambda lock: lock._number))
    for lock in _HELD:
        lock._lock.acquire()
        if lock._before_fork is not None:
            lock._before_fork()


def _release_all() -> None:
    while _HELD:
        _HELD.pop()._lock.release()
    _FORKING.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_acquire_all, after_in_parent=_release_all, after_in_child=_release_all
    )
