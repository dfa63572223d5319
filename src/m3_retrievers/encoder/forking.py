"""What a forked child must not inherit: locks that the parent's other threads were holding.

Only the thread that forks lives on in the child, so a lock another thread held is never
released there, and the child's first query would wait for ever.
"""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet

import torch


class _HoldsLocks(Protocol):
    def _renew_after_fork(self) -> bool: ...

    def __hash__(self) -> int: ...


_WATCHED: WeakSet[_HoldsLocks] = WeakSet()


def watch(instance: _HoldsLocks) -> None:
    """Let ``instance`` make its locks anew in every child that is forked from here on."""
    _WATCHED.add(instance)


def _in_child() -> None:
    used = [instance._renew_after_fork() for instance in list(_WATCHED)]
    if any(used):
        # the threads of torch's OpenMP pool are gone as well, and a parallel region would wait
        # for them; torch sets one thread in the workers it forks, for the same reason
        torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(after_in_child=_in_child)
