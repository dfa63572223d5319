"""Threads for work that is awaited: a pool of our own, so that asyncio's stays free.

Searches that wait would otherwise fill the event loop's default executor, and with it every
file and name look-up of the host's. The pool is bounded: the rest wait their turn in a queue.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

# Queries that wait together share forward passes, so more threads than cores pay off.
THREADS = 32
_lock = threading.Lock()
_pools: list[ThreadPoolExecutor] = []


async def in_thread(
    function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
) -> Result:
    """Return what the call returns, made in a thread with the caller's context variables."""
    context = contextvars.copy_context()
    call = partial(context.run, partial(function, *args, **kwargs))
    return await asyncio.get_running_loop().run_in_executor(_pool(), call)


def _pool() -> ThreadPoolExecutor:
    with _lock:
        if not _pools:
            _pools.append(ThreadPoolExecutor(THREADS, thread_name_prefix="m3-retrievers"))
        return _pools[0]


def _forget() -> None:
    """In a forked child: the pool's threads stayed with the parent."""
    global _lock
    _lock = threading.Lock()
    _pools.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
