"""The command line within the tests' own process: as typed, without a process for each."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from m3_retrievers.cli import main


@dataclass(frozen=True)
class Done:
    """What a command left: its exit code, and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def message(self) -> str:
        return " ".join(self.err.split())


Run = Callable[..., Done]


@pytest.fixture
def run(capsys, monkeypatch) -> Run:
    """Run a command by its arguments, as the installed command does."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    def command(*arguments: object) -> Done:
        capsys.readouterr()
        code = 0
        try:
            main([str(one) for one in arguments])
        except SystemExit as end:
            code = int(end.code or 0)
        written = capsys.readouterr()
        return Done(code, written.out, written.err)

    return command


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    """A folder with two small files."""
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "csv.md").write_text(
        "# Reading\n\nThe reader returns each row of a csv file as a list."
    )
    (folder / "cats.txt").write_text("Cats sleep for most of the day.")
    return folder
