"""Concurrent callers share one call.

While one thread computes, the others queue up; when it is done it wakes those it computed for,
and the first that still waits takes the whole queue in a single batch. A lone caller pays nothing
and never waits for company, and nobody waits for a batch that is not its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Generic, TypeVar

from m3_retrievers.errors import EncoderUnavailableError, M3Error, M3Warning

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Ticket(Generic[Item, Result]):
    """One caller's place in the queue.

    woken: it was computed for, or it is its turn to compute (``leads``). alone: it shares with
    nobody. Computed for without a result, it is to be run alone.
    """

    def __init__(self, item: Item, *, alone: bool = False) -> None:
        self.item, self.alone = item, alone
        self.woken = threading.Event()
        self.leads = False
        self.results: list[Result] = []
        self.unavailable = ""


class Coalesced(Generic[Item, Result]):
    """Wraps a batch function; calling it with one item returns that item's result."""

    def __init__(
        self,
        run: Callable[[Sequence[Item]], Sequence[Result]],
        *,
        turn: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        """turn: the context in which a batch is run; who queues up before it begins is in it."""
        self._run, self._turn = run, turn
        self._queue: list[_Ticket[Item, Result]] = []
        self._lock = threading.Lock()
        self._busy = False

    def __call__(self, item: Item) -> Result:
        ticket: _Ticket[Item, Result] = _Ticket(item)
        self._take_part(ticket)
        if not ticket.results and not ticket.unavailable:
            # an item whose batch failed is tried alone, so that each caller sees its own error,
            # and one at a time, because what failed may have been memory
            ticket = _Ticket(item, alone=True)
            self._take_part(ticket)
        if ticket.unavailable:
            raise EncoderUnavailableError(ticket.unavailable)
        return ticket.results[0]

    def _take_part(self, ticket: _Ticket[Item, Result]) -> None:
        """Wait until the ticket was computed for, or compute when its turn comes."""
        with self._lock:
            ticket.leads = not self._busy
            self._busy = True
            if not ticket.leads:
                self._queue.append(ticket)
        if not ticket.leads:
            try:
                ticket.woken.wait()
            finally:
                if not ticket.woken.is_set():  # interrupted
                    self._leave(ticket)
        if ticket.leads:
            try:
                self._serve(ticket)
            finally:
                self._hand_over()

    def _hand_over(self) -> None:
        """Let the first that waits compute next."""
        with self._lock:
            if self._queue:
                following = self._queue.pop(0)
                following.leads = True
                following.woken.set()
            else:
                self._busy = False

    def _leave(self, ticket: _Ticket[Item, Result]) -> None:
        with self._lock:
            if ticket in self._queue:
                self._queue.remove(ticket)
        if ticket.leads:
            self._hand_over()

    def _serve(self, first: _Ticket[Item, Result]) -> None:
        batch = [first]
        try:
            with self._turn():
                if not first.alone:
                    with self._lock:
                        batch += [one for one in self._queue if not one.alone]
                        self._queue = [one for one in self._queue if one.alone]
                self._compute(batch)
        finally:
            for ticket in batch:
                ticket.woken.set()

    def _compute(self, batch: Sequence[_Ticket[Item, Result]]) -> None:
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
