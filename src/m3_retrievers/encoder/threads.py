"""As many threads as the processor time that is really there.

A container may see 64 cores and have the time of two: PyTorch starts a thread a core, and they wait
for one another. Linux states the limit in ``cpu.max`` (cgroup v2) or ``cpu.cfs_quota_us`` (v1).
"""

from __future__ import annotations

import math
from pathlib import Path

import torch

_CGROUP = Path("/sys/fs/cgroup")


def fit_threads() -> None:
    """Lower PyTorch's threads to the container's limit, if that is below; never raise them."""
    limit = quota(_CGROUP)
    if limit is not None and limit < torch.get_num_threads():
        torch.set_num_threads(limit)


def quota(folder: Path) -> int | None:
    """Return how many processors' time a cgroup has, rounded up; None without a limit."""
    try:
        if (folder / "cpu.max").is_file():
            allowed, period = (folder / "cpu.max").read_text().split()
        else:
            allowed, period = (
                (folder / "cpu" / name).read_text()
                for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            )
        share = int(allowed) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # no such file, or "max"
        return None
    return max(1, math.ceil(share)) if share > 0 else None
