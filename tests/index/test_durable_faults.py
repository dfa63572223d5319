"""Short runs of benchmarks/faults: kills, changed bytes, two writers, a disk that is full."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FAULTS = Path(__file__).parents[2] / "benchmarks" / "faults"

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="forks children to kill them"),
    pytest.mark.slow,
]


def run(script: str, folder: Path, *options: str):
    """Run a script in a process of its own, its results in a folder; they come back."""
    program = (
        "import sys, runpy; from pathlib import Path; import common;"
        f"common.RESULTS = Path({str(folder)!r});"
        f"sys.argv = [{script!r}, *{list(options)!r}];"
        f"runpy.run_path({str(FAULTS / script)!r}, run_name='__main__')"
    )
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(FAULTS), str(FAULTS.parent), *sys.path]),
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.json")
    return json.loads(path.read_text())


def test_nothing_acknowledged_is_lost_where_writers_are_killed(tmp_path):
    found = run("kills.py", tmp_path, "--trials", "10", "--seed", "5000")
    assert sum(found["the_change_under_way"].values()) == 10
    assert found["changes_acknowledged"] > 0


def test_a_changed_byte_is_refused_or_harmless(tmp_path):
    found = run("flips.py", tmp_path, "--every", "499", "--every-log", "1999")
    assert found["file"]["IndexCorruptError"] > 0
    assert found["log"]["changed"] > 10


def test_two_writers_lose_nothing_and_mix_nothing(tmp_path):
    found = run("writers.py", tmp_path, "--pairs", "3")
    assert found["snapshot"]["pairs"] == 3
    assert found["durable"]["states_read_meanwhile"] >= 3


def test_a_limit_on_the_size_of_files_is_an_error_of_ours(tmp_path):
    found = run("limits.py", tmp_path, "--without-mounts")
    durable = found["a file of 2 MB at most, durable"]
    assert durable["SavedIndexError of upsert"] == 3
    assert durable["documents_before"] > 0
