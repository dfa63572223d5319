"""Concurrent callers share one call.

While one thread computes, the others queue up; whoever comes next takes the whole queue
in a single batch. A lone caller pays nothing and never waits for company.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from m3_retrievers.errors import EncoderUnavailableError, M3Error, M3Warning

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Ticket(Generic[Item, Result]):
    """One caller's place in the queue; ``taken`` without a result means: run it alone."""

    def __init__(self, item: Item) -> None:
        self.item = item
        self.taken = False
        self.results: list[Result] = []
        self.unavailable = ""


class Coalesced(Generic[Item, Result]):
    """Wraps a batch function; calling it with one item returns that item's result."""

    def __init__(self, run: Callable[[Sequence[Item]], Sequence[Result]]) -> None:
        self._run = run
        self._queue: list[_Ticket[Item, Result]] = []
        self._queue_lock = threading.Lock()
        self._turn = threading.Lock()

    def __call__(self, item: Item) -> Result:
        ticket: _Ticket[Item, Result] = _Ticket(item)
        with self._queue_lock:
            self._queue.append(ticket)
        with self._turn:
            if not ticket.taken:
                self._serve()
        if ticket.results:
            return ticket.results[0]
        if ticket.unavailable:
            raise EncoderUnavailableError(ticket.unavailable)
        # an item whose batch failed is tried alone, so that each caller sees its own error, and
        # one at a time, because what failed may have been memory
        with self._turn:
            return self._run([item])[0]

    def _serve(self) -> None:
        with self._queue_lock:
            batch, self._queue = self._queue, []
        for ticket in batch:
            ticket.taken = True
        try:
            results = self._run([ticket.item for ticket in batch])
        except EncoderUnavailableError as error:
            if len(batch) == 1:
                raise
            # a server that does not answer fails all alike; to ask it for each would take hours
            for ticket in batch:
                ticket.unavailable = str(error)
            return
        except (M3Error, M3Warning, MemoryError, RuntimeError):
            # RuntimeError is what torch raises for memory that ran out, among other things
            if len(batch) == 1:
                raise
            return
        for ticket, result in zip(batch, results, strict=True):
            ticket.results.append(result)
