"""Locks that a fork cannot tear: the child finds them free, and what they guard whole."""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from types import TracebackType
from weakref import WeakSet


class _HeldByForks(ABC):
    """A lock that a fork waits for, and holds while it happens.

    Without this a child forked while another thread is searching would wait forever for a
    thread that it does not have, or see a change half done.
    """

    def __init__(self) -> None:
        self._number = next(_NUMBERS)
        _LOCKS.add(self)

    @abstractmethod
    def _before_fork(self) -> None:
        """Take the lock, so that no other thread holds it."""

    @abstractmethod
    def _after_fork(self, *, in_child: bool) -> None:
        """Give it back; of the threads that wait for it none is in the child."""


class ForkSafeLock(_HeldByForks):
    """A re-entrant lock; a fork waits until no other thread holds it."""

    def __init__(self, *, before_fork: Callable[[], None] | None = None) -> None:
        """before_fork: called with the lock held, for what must not cross a fork."""
        super().__init__()
        self._lock = threading.RLock()
        self._prepare = before_fork

    def acquire(self, *, wait: bool = True) -> bool:
        """Take the lock; returns whether it was taken, which it always is after waiting."""
        return self._lock.acquire(blocking=wait)

    def release(self) -> None:
        """Give the lock back."""
        self._lock.release()

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

    def _before_fork(self) -> None:
        self._lock.acquire()
        if self._prepare is not None:
            self._prepare()

    def _after_fork(self, *, in_child: bool) -> None:  # noqa: ARG002
        self._lock.release()


class SharedLock(_HeldByForks):
    """Any number of threads that read, or one that changes; a fork waits until there is neither.

    Both are re-entrant, and a change may read. A thread that reads may change as well, as soon
    as the others have left; one such thread at a time, since two would wait for each other. A
    change that waits lets no further thread in, and those that waited for a change come before
    the next one: neither side starves.
    """

    def __init__(self) -> None:
        super().__init__()
        self._moved = threading.Condition(threading.Lock())
        self._readers: dict[int, int] = {}  # how often each thread is inside
        self._writer: int | None = None
        self._depth = 0  # how often the writer is inside
        self._waiting_to_write = self._waiting_to_read = 0
        self._due = 0  # how many readers come before the next change

    @property
    def is_reading(self) -> bool:
        """Whether this thread is inside to read."""
        return threading.get_ident() in self._readers

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Return a context in which nobody changes anything, unless this thread itself does."""
        me = threading.get_ident()
        before = self._readers.get(me, 0)
        try:
            self._begin_reading(me)
            yield
        finally:
            # set, not counted down: right wherever a Ctrl-C came
            self._end_reading(me, before)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Return a context in which no other thread is inside."""
        me = threading.get_ident()
        before = self._depth if self._writer == me else 0
        try:
            self._begin_writing(me)
            yield
        finally:
            self._end_writing(me, before)

    def _begin_reading(self, me: int) -> None:
        with self._moved:
            if me not in self._readers and self._writer != me:
                self._wait_to_read()
            self._readers[me] = self._readers.get(me, 0) + 1

    def _wait_to_read(self) -> None:
        self._waiting_to_read += 1
        try:
            while self._writer is not None or (self._waiting_to_write and not self._due):
                self._moved.wait()
        finally:
            self._waiting_to_read -= 1
            self._due = min(self._due, self._waiting_to_read)
            self._moved.notify_all()

    def _end_reading(self, me: int, before: int) -> None:
        with self._moved:
            if before:
                self._readers[me] = before
            else:
                self._readers.pop(me, None)
                if self._waiting_to_write:
                    self._moved.notify_all()

    def _begin_writing(self, me: int) -> None:
        with self._moved:
            if self._writer != me:
                self._waiting_to_write += 1
                try:
                    while self._writer is not None or self._due or self._readers.keys() - {me}:
                        self._moved.wait()
                    self._writer = me
                finally:
                    self._waiting_to_write -= 1
                    self._moved.notify_all()
            self._depth += 1

    def _end_writing(self, me: int, before: int) -> None:
        with self._moved:
            if self._writer != me:  # interrupted before it was
                return
            self._depth = before
            if not before:
                self._writer = None
                self._due = self._waiting_to_read
                self._moved.notify_all()

    def _before_fork(self) -> None:
        self._begin_writing(threading.get_ident())
        self._moved.acquire()

    def _after_fork(self, *, in_child: bool) -> None:
        if in_child:
            self._moved = threading.Condition(threading.Lock())
            self._waiting_to_write = self._waiting_to_read = self._due = 0
        else:
            self._moved.release()
        self._end_writing(threading.get_ident(), self._depth - 1)


_NUMBERS = count()
_LOCKS: WeakSet[_HeldByForks] = WeakSet()
_HELD: list[_HeldByForks] = []
_FORKING = threading.Lock()  # two threads that fork take turns


def _acquire_all() -> None:
    _FORKING.acquire()
    # whoever takes two of them takes the older one first, and so must a fork
    for lock in sorted(_LOCKS, key=lambda lock: lock._number):
        lock._before_fork()
        _HELD.append(lock)


def _release_all(*, in_child: bool) -> None:
    while _HELD:
        _HELD.pop()._after_fork(in_child=in_child)
    _FORKING.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_acquire_all,
        after_in_parent=lambda: _release_all(in_child=False),
        after_in_child=lambda: _release_all(in_child=True),
    )
