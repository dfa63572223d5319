import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from m3_retrievers.cli.app import app
from m3_retrievers.cli.demo import QUESTIONS

COMMAND = [sys.executable, "-c", "from m3_retrievers.cli import main; main()"]


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does, in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "NO_COLOR": "1"}
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "csv.md").write_text(
        "# Reading\n\nThe reader returns each row of a csv file as a list."
    )
    (docs / "cats.txt").write_text("Cats sleep for most of the day.")
    return docs


def test_a_folder_is_indexed_searched_and_brought_up_to_date(folder, tmp_path):
    out = str(tmp_path / "index")
    made = run("index", str(folder), "--out", out)
    assert made.returncode == 0, made.stderr
    assert "2 passages of 2 files" in made.stdout
    found = run("search", out, "how do I read a csv file?", "-k", "1", "--explain")
    assert found.returncode == 0, found.stderr
    assert "csv.md:1" in found.stdout
    assert "cats.txt" not in found.stdout
    assert "Rank, and share of the score" in found.stdout

    (folder / "cats.txt").unlink()
    (folder / "dogs.txt").write_text("Dogs bark.")
    again = run("index", str(folder), "--out", out)
    assert "2 passages of 2 files" in again.stdout
    assert "(1 new or changed, 1 removed)" in again.stdout
    filtered = run("search", out, "animals", "--filter", '{"source": {"$ne": "csv.md"}}')
    assert "dogs.txt" in filtered.stdout
    assert "csv.md" not in filtered.stdout
    none = run("search", out, "animals", "--filter", '{"source": "no.md"}')
    assert "No hits" in none.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["index", "no-such-folder"], "expected a folder"),
        (["search", "no-such-index", "q"], "manifest.json"),
        (["doctor", "--model", "no/such-model-anywhere"], "no folder here"),
    ],
)
def test_what_is_refused_ends_as_one_message_without_a_traceback(arguments, message, tmp_path):
    environment_offline = {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, **environment_offline},
        check=False,
    )
    assert done.returncode == 1
    assert "Error:" in done.stderr
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_a_filter_that_cannot_be_read_is_refused(folder, tmp_path):
    out = str(tmp_path / "index")
    run("index", str(folder), "--out", out)
    for filter, message in (("{", "JSON object"), ('{"a": {"$gtt": 1}}', "$gtt")):
        done = run("search", out, "cats", "--filter", filter)
        assert done.returncode == 1
        assert message in done.stderr


def test_an_index_of_another_model_is_refused(folder, tmp_path, tiny_m3):
    out = str(tmp_path / "index")
    assert run("index", str(folder), "--out", out, "--model", str(tiny_m3)).returncode == 0
    done = run("search", out, "cats", "--model", "m3-mini")
    assert done.returncode == 1
    assert "was built by" in done.stderr


def test_the_demo_answers_its_questions_and_opens_its_index_the_second_time(tmp_path):
    first = run("demo", "--limit", "60", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    for text in (
        *QUESTIONS,
        "dense",
        "BM25",
        "ColBERT",
        "hybrid",
        "m3-retrievers search .demo/index",
    ):
        assert text in first.stdout
    assert "60/60" in first.stderr
    second = run("demo", "--limit", "60", cwd=tmp_path)
    assert "Opened the index of an earlier run" in second.stderr
    assert second.stdout == first.stdout


def test_doctor_measures_and_passes_on_m3_mini():
    done = run("doctor")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "published for BAAI/bge-m3 only" in done.stdout
    assert "differs" not in done.stdout
    assert "fingerprint" in done.stdout


def test_help_names_every_command():
    shown = CliRunner().invoke(app, ["--help"]).stdout
    for command in ("index", "search", "demo", "doctor"):
        assert command in shown
