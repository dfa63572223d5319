"""Threads follow a container's limit, and nothing else."""

import pytest
import torch

from m3_retrievers.encoder import threads
from m3_retrievers.encoder.threads import fit_threads, quota


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("150000 100000", 2),
        ("20000 100000", 1),
        ("max 100000", None),
        ("", None),
        ("-1 100000", None),
        ("100000 0", None),
    ],
)
def test_the_limit_is_rounded_up(tmp_path, content, expected):
    (tmp_path / "cpu.max").write_text(content)
    assert quota(tmp_path) == expected


def test_the_older_layout_is_read_too(tmp_path):
    assert quota(tmp_path) is None
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("300000\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert quota(tmp_path) == 3


def test_threads_are_lowered_and_never_raised(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(threads, "_CGROUP", tmp_path)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr(torch, "set_num_threads", seen.append)
    fit_threads()
    for content in ("1600000 100000", "200000 100000"):
        (tmp_path / "cpu.max").write_text(content)
        fit_threads()
    assert seen == [2]
