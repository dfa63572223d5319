"""Ctrl-C as a request to stop at the next good moment."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_NOTICE = b"\nStopping after this batch; Ctrl-C again stops at once, and saves nothing.\n"


@contextmanager
def stop_requested() -> Iterator[Callable[[], bool]]:
    """Give a function that says whether Ctrl-C was pressed; the second time it interrupts.

    So an index is never left with half a batch. Outside the main thread, which alone gets
    signals, the function says no.
    """
    asked = threading.Event()

    def ask(_number: int, _frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        with suppress(OSError):
            os.write(2, _NOTICE)  # a stream's lock may be held by what was interrupted

    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = signal.signal(signal.SIGINT, ask)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)
