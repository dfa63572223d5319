"""Every notebook runs from a clean kernel without a network, and shows what is committed."""

from pathlib import Path

import pytest

import notebooks

pytestmark = pytest.mark.slow

PATHS = notebooks.paths()
SECONDS = 120


@pytest.mark.timeout(10 * SECONDS)
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_what_is_committed(path: Path) -> None:
    committed = notebooks.read(path)
    again = notebooks.run(path, seconds=SECONDS)
    assert notebooks.shown(again) == notebooks.shown(committed)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_whole_and_clean(path: Path) -> None:
    committed = notebooks.read(path)
    kinds = [kind for cell in notebooks.shown(committed) for kind, _ in cell]
    assert {"error", "stderr"}.isdisjoint(kinds)
    assert {"text/html", "image/png"} & set(kinds), "expected something to look at"
    counts = [cell.execution_count for cell in committed.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    assert str(Path.home()) not in path.read_text("utf-8")


def test_all_seven_are_there() -> None:
    assert [path.stem[:2] for path in PATHS] == ["01", "02", "03", "04", "05", "06", "07"]
