"""Requests that wait together share a forward pass.

One thread computes, for the model is what is scarce. Whenever it is free, the text that waits
longest is taken, and with it those of like length and the same kind, whoever asked for them, up
to a budget of tokens. So a short query does not wait for every document before it, and nothing
waits for ever.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any, TypeVar

from m3_retrievers.encoder.base import Encoder
from m3_retrievers.errors import EncoderUnavailableError, collected
from m3_retrievers.serve.metrics import Metrics
from m3_retrievers.types.representations import Output, Representations

Result = TypeVar("Result")
_LONGEST_PATIENCE = 30


@dataclass(frozen=True, slots=True)
class Kind:
    """What texts must have in common to share a pass."""

    query: bool
    outputs: tuple[Output, ...]


@dataclass(slots=True, eq=False)
class _Job:
    """What one request waits for: texts of a kind, or a call of its own."""

    future: asyncio.Future[Any]
    kind: Kind | None = None
    call: Callable[[], Any] | None = None
    rows: dict[int, Representations] = field(default_factory=dict)
    size: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class _Item:
    """One text that waits."""

    job: _Job
    place: int
    text: str
    tokens: int


class Batcher:
    """Runs an encoder for many requests at once; lives in one event loop.

    budget: tokens of a padded pass. queue: texts that may wait.
    """

    def __init__(self, encoder: Encoder, *, budget: int, queue: int, metrics: Metrics) -> None:
        self._encoder, self._budget, self._queue = encoder, budget, queue
        self._metrics = metrics
        self._waiting: dict[int, _Item] = {}
        self._counted = 0
        self._running: Sequence[_Item] = ()
        self._numbers = count()
        self._arrived = asyncio.Event()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="m3-serve")
        self._worker: asyncio.Task[None] | None = None
        self._seconds_a_text = 0.01

    def start(self) -> None:
        """Begin to work."""
        self._worker = asyncio.get_running_loop().create_task(self._work())

    async def stop(self) -> None:
        """End the work; whoever still waits is told that the server is going."""
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.wait({self._worker})
        gone = EncoderUnavailableError("The server is shutting down. Ask another, or again later.")
        for job in {item.job for item in (*self._running, *self._waiting.values())}:
            if not job.future.done():
                job.future.set_exception(gone)
        self._waiting.clear()
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def encode(
        self, texts: Sequence[str], kind: Kind, tokens: Sequence[int]
    ) -> Representations:
        """Return the texts' representations; tokens: of each, about.

        Raises EncoderUnavailableError where the queue has no room. A caller that is cancelled
        leaves its place.
        """
        job = _Job(self._promise(), kind=kind, size=len(texts))
        items = [_Item(job, at, text, tokens[at]) for at, text in enumerate(texts)]
        found: Representations = await self._wait_for(job, items)
        return found

    async def call(self, function: Callable[[], Result]) -> Result:
        """Return what a function returns that uses the model; it takes its turn, too."""
        job = _Job(self._promise(), call=function)
        found: Result = await self._wait_for(job, [_Item(job, 0, "", 0)])
        return found

    def patience(self) -> int:
        """Return after how many seconds there should be room, 1 to 30."""
        seconds = math.ceil(len(self._waiting) * self._seconds_a_text)
        return max(1, min(_LONGEST_PATIENCE, seconds))

    # Inside

    def _promise(self) -> asyncio.Future[Any]:
        return asyncio.get_running_loop().create_future()

    async def _wait_for(self, job: _Job, items: Sequence[_Item]) -> Any:
        if len(self._waiting) + len(items) > self._queue:
            self._metrics.counts["refused_total"] += 1
            raise EncoderUnavailableError(
                f"The queue is expected to have room for {len(items)} texts, got "
                f"{len(self._waiting)} of {self._queue} places taken. Ask again a little later."
            )
        numbers = [next(self._numbers) for _ in items]
        self._waiting.update(zip(numbers, items, strict=True))
        self._count()
        self._arrived.set()
        try:
            return await job.future
        finally:
            for number in numbers:  # of a caller that was cancelled
                self._waiting.pop(number, None)
            self._count()

    def _count(self) -> None:
        # beside those of the server's other queues
        self._metrics.queue_texts += len(self._waiting) - self._counted
        self._counted = len(self._waiting)

    async def _work(self) -> None:
        while True:
            while not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
            items = self._running = self._next()
            self._count()
            call = items[0].job.call
            if call is not None:
                self._finish(items[0].job, *await self._in_pool(call))
            else:
                await self._encode(items)

    def _next(self) -> list[_Item]:
        """Take the text that waits longest, and those that suit it."""
        oldest = next(iter(self._waiting.values()))
        like = [
            (abs(item.tokens - oldest.tokens), number)
            for number, item in self._waiting.items()
            if item.job.kind == oldest.job.kind and (oldest.job.kind or item is oldest)
        ]
        taken: list[_Item] = []
        longest = 0
        for _, number in sorted(like):
            longest = max(longest, self._waiting[number].tokens)
            if taken and longest * (len(taken) + 1) > self._budget:
                break
            taken.append(self._waiting[number])
            del self._waiting[number]
        return taken

    async def _encode(self, items: Sequence[_Item]) -> None:
        start = time.perf_counter()
        kind = items[0].job.kind
        assert kind is not None
        texts = [item.text for item in items]
        error, found = await self._in_pool(partial(_encoded, self._encoder, texts, kind))
        self._seconds_a_text = (time.perf_counter() - start) / len(items)
        jobs = list(dict.fromkeys(item.job for item in items))
        if error is not None and len(jobs) > 1:
            # one of them may be to blame: each is tried alone, and sees its own error
            for job in jobs:
                await self._encode([item for item in items if item.job is job])
            return
        counts = self._metrics.counts
        counts["batches_total"] += 1
        counts["batch_texts_total"] += len(items)
        counts["batch_tokens_total"] += sum(item.tokens for item in items)
        counts["batch_requests_total"] += len(jobs)
        for row, item in enumerate(items):
            if error is not None:
                self._finish(item.job, error, None)
                continue
            item.job.rows[item.place] = found[row]
            if len(item.job.rows) == item.job.size:
                rows = [item.job.rows[at] for at in range(item.job.size)]
                self._finish(item.job, None, Representations.concatenate(rows))

    async def _in_pool(self, function: Callable[[], Any]) -> tuple[BaseException | None, Any]:
        """Return the error or the result of a call in the one thread that computes."""
        context = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._pool, context.run, function)
        await asyncio.wait({future})
        error = future.exception()
        return error, None if error is not None else future.result()

    def _finish(self, job: _Job, error: BaseException | None, found: Any) -> None:
        if job.future.done():  # its caller went away
            return
        if error is not None:
            job.future.set_exception(error)
        else:
            job.future.set_result(found)


def _encoded(encoder: Encoder, texts: Sequence[str], kind: Kind) -> Representations:
    """Encode texts of several requests; what there is to warn of was found request by request."""
    encode = encoder.encode_queries if kind.query else encoder.encode_documents
    with collected():
        return encode(texts, outputs=kind.outputs)
