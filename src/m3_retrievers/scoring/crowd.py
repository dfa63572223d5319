"""The processors, taken in turn by the threads that compute with PyTorch on them.

OpenMP gives each thread that computes a team of its own, and GNU's puts teams to sleep between two
operations as soon as there are more threads than processors: of two callers each is slower than
without a team. So a pass of a model has all processors and its team, and scoring has one processor
and none where others want one too. First come, first served.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

import torch

# Parts that work is cut into for each processor, so that one that comes late takes fewer.
_PARTS = 8

Part = TypeVar("Part")
Result = TypeVar("Result")


class _Ticket:
    """A place in the queue for so many processors."""

    def __init__(self, processors: int) -> None:
        self.processors = processors
        self.called = threading.Event()

    def wait(self) -> None:
        self.called.wait()


class Crowd:
    """Gives so many processors to the threads that ask for one or for all of them.

    Who has a turn must not ask for another. With one thread there are no teams to keep apart, and
    everybody goes ahead.

    >>> crowd = Crowd(2)
    >>> with crowd.all_processors():
    ...     pass
    >>> crowd.on_one_processor(lambda: 3)
    3
    """

    def __init__(self, processors: int) -> None:
        self._processors = self._free = processors
        self._lock = threading.Lock()
        self._queue: deque[_Ticket] = deque()
        self._workers: ThreadPoolExecutor | None = None

    @property
    def parts(self) -> int:
        """Into how many parts work is best cut for ``side_by_side``."""
        return self._processors * _PARTS

    @contextmanager
    def all_processors(self) -> Iterator[None]:
        """Return a context that has the processors to itself."""
        if self._processors == 1:
            yield
            return
        ticket = _Ticket(self._processors)
        try:
            self._wait(ticket)
            yield
        finally:
            self._leave(ticket)

    def on_one_processor(self, function: Callable[[], Result]) -> Result:
        """Return what the function returns; where nobody else computes, it has them all."""
        if self._processors == 1:
            return function()
        ticket = _Ticket(1)
        try:
            alone = self._wait(ticket)
            return function() if alone else self._submit(function).result()
        finally:
            self._leave(ticket)

    def side_by_side(self, function: Callable[[Part], object], parts: Sequence[Part]) -> None:
        """Call a function that needs no team for each part, on all processors.

        Each takes the next part when it is done with one, since a team that has nothing to do
        keeps its processors for some milliseconds. Where somebody else computes, the calling
        thread does all of them.
        """
        ticket, waiting = _Ticket(1), iter(parts)
        others: list[Future[None]] = []

        def work() -> None:
            for part in waiting:
                function(part)

        try:
            if self._processors > 1 and self._wait(ticket):
                count = min(self._processors, len(parts)) - 1
                others += [self._submit(work) for _ in range(count)]
            work()
        finally:
            wait(others)
            self._leave(ticket)
        for other in others:
            other.result()  # raises what it raised

    def _wait(self, ticket: _Ticket) -> bool:
        """Wait for the ticket's turn; returns whether nobody else is there."""
        with self._lock:
            alone = self._free == self._processors and not self._queue
            self._queue.append(ticket)
            self._call()
        ticket.wait()
        return alone

    def _leave(self, ticket: _Ticket) -> None:
        with self._lock:
            if ticket.called.is_set():
                self._free += ticket.processors
            elif ticket in self._queue:  # interrupted
                self._queue.remove(ticket)
            self._call()

    def _call(self) -> None:
        """Let those in whose turn it is."""
        while self._queue and self._queue[0].processors <= self._free:
            ticket = self._queue.popleft()
            self._free -= ticket.processors
            ticket.called.set()

    def _submit(self, function: Callable[[], Result]) -> Future[Result]:
        """Have a function called in a thread without a team."""
        try:
            with self._lock:
                if self._workers is None:
                    self._workers = _workers(self._processors)
            return self._workers.submit(function)
        except RuntimeError:  # the main thread has ended, and no executor takes anything more
            made: Future[Result] = Future()
            made.set_result(function())
            return made


def _workers(count: int) -> ThreadPoolExecutor:
    """Return so many threads, whose operations of PyTorch's run in one thread each."""
    before, together = torch.get_num_threads(), threading.Barrier(count)

    def begin() -> None:
        torch.get_num_threads()  # a thread's first look at the number overwrites its own
        torch.set_num_threads(1)
        together.wait()

    pool = ThreadPoolExecutor(count, "m3-scoring")
    for one in [pool.submit(begin) for _ in range(count)]:
        one.result()
    # what a thread sets holds for itself, and for the threads that are yet to come
    torch.set_num_threads(before)
    return pool


_lock = threading.Lock()
_crowds: list[Crowd] = []


def crowd() -> Crowd:
    """Return the process's own, made with as many processors as PyTorch has threads by then."""
    with _lock:
        if not _crowds:
            _crowds.append(Crowd(torch.get_num_threads()))
        return _crowds[0]


def _forget() -> None:
    """In a forked child: workers, and those who had a turn, stayed with the parent."""
    global _lock
    _lock = threading.Lock()
    _crowds.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
