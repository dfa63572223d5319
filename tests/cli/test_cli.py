import json
import os
import subprocess
import sys
from functools import partial

import pytest

import m3_retrievers
from m3_retrievers import HybridRetriever, M3Encoder
from m3_retrievers.cli.demo import QUESTIONS
from m3_retrievers.corpora.standard_library import standard_library
from m3_retrievers.errors import TruncationWarning


@pytest.mark.slow
def test_the_command_starts_in_a_process_of_its_own(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "m3_retrievers", "index", "no\x1b[31m-folder"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("Error: expected a folder")
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stderr


def test_help_names_every_command(run):
    shown = run("--help").out
    for command in ("index", "search", "serve", "demo", "train", "mine", "evaluate", "doctor"):
        assert command in shown


def test_the_version_is_the_packages(run):
    assert run("--version").out == f"m3-retrievers {m3_retrievers.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["index", "no-such-folder"], "expected a folder"),
        (["search", "no-such-index", "q"], "manifest.json"),
        (["doctor", "--model", "no/such-model-anywhere"], "no folder here"),
    ],
)
def test_what_is_refused_ends_as_one_message_without_a_traceback(
    arguments, message, run, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    done = run(*arguments)
    assert done.code == 1
    assert done.err.startswith("Error: ")
    assert message in done.message


def test_what_the_system_refuses_ends_as_one_message(run, docs, tiny_m3, tmp_path, monkeypatch):
    def full(self, folder):
        raise OSError(28, "No space left on device", str(folder))

    monkeypatch.setattr(HybridRetriever, "save", full)
    done = run("index", docs, "--out", tmp_path / "index", "--model", tiny_m3)
    assert done.code == 1
    assert "Error: [Errno 28] No space left on device" in done.err


def test_a_command_that_is_misspelt_is_a_usage_error(run):
    assert run("indx").code == 2


@pytest.fixture
def searched(run, docs, tiny_m3, tmp_path):
    """An index of the tiny model, and its name for the command line."""
    out = tmp_path / "index"
    assert run("index", docs, "--out", out, "--model", tiny_m3).code == 0
    return out


def test_a_search_shows_places_scores_and_shares(run, searched, tiny_m3):
    found = run("search", searched, "csv file", "-k", "1", "--explain", "--model", tiny_m3)
    assert found.code == 0, found.err
    for shown in ("ColBERT", "dense", "sparse", "hybrid", "Rank, and share of the score"):
        assert shown in found.out
    assert ("csv.md:1" in found.out) != ("cats.txt:1" in found.out)


def test_a_filter_admits_some(run, searched, tiny_m3):
    options = ("--model", tiny_m3, "--filter")
    filtered = run("search", searched, "animals", *options, '{"source": {"$ne": "csv.md"}}')
    assert "cats.txt" in filtered.out
    assert "csv.md" not in filtered.out
    none = run("search", searched, "animals", *options, '{"source": "no.md"}')
    assert "No hits" in none.out


@pytest.mark.parametrize(
    ("filter", "message"),
    [
        ("{", "JSON object"),
        ("[1]", "JSON object"),
        ("[" * 100_000, "JSON object"),
        ('{"a": {"$gtt": 1}}', "$gtt"),
    ],
)
def test_a_filter_that_cannot_be_read_is_refused(run, searched, tiny_m3, filter, message):
    done = run("search", searched, "cats", "--model", tiny_m3, "--filter", filter)
    assert done.code == 1
    assert message in done.message
    assert len(done.err) < 1_000


def test_a_search_can_be_read_by_programs(run, searched, tiny_m3):
    options = ("--model", tiny_m3, "--json")
    found = json.loads(run("search", searched, "csv file", *options).out)
    retriever = HybridRetriever.load(searched, M3Encoder.from_pretrained(tiny_m3, device="cpu"))
    hits = retriever.search("csv file", k=5)
    assert found["question"] == "csv file"
    assert [hit["id"] for hit in found["hits"]] == [hit.id for hit in hits]
    assert [hit["score"] for hit in found["hits"]] == pytest.approx([hit.score for hit in hits])
    assert found["hits"][0]["text"] == hits[0].text
    explained = json.loads(run("search", searched, "csv file", "--explain", *options).out)
    assert explained["hits"][0]["explanation"]["id"] == hits[0].id
    none = run("search", searched, "q", "--filter", '{"source": "no.md"}', *options)
    assert json.loads(none.out)["hits"] == []


def test_a_search_loads_no_model_just_because_an_index_names_it(
    run, searched, tiny_m3, monkeypatch
):
    monkeypatch.setattr(M3Encoder, "from_pretrained", pytest.fail)
    done = run("search", searched, "who's there?")
    assert done.code == 1
    assert f"was built by the model '{tiny_m3}'" in done.message
    command = f"m3-retrievers search {searched} 'who'\"'\"'s there?' --model {tiny_m3}"
    assert command in done.message


def test_an_index_without_a_models_name_asks_for_one(run, docs, tiny_m3, tmp_path):
    retriever = HybridRetriever(M3Encoder.from_pretrained(tiny_m3, device="cpu"))
    retriever.add(["a text"])
    retriever.index.save(tmp_path / "index")
    done = run("search", tmp_path / "index", "text")
    assert done.code == 1
    assert "names no model" in done.message
    assert "--model MODEL" in done.message


def test_an_index_of_another_model_is_refused(run, searched, other_m3):
    done = run("search", searched, "cats", "--model", other_m3)
    assert done.code == 1
    assert "was built by" in done.message


@pytest.mark.slow
def test_an_index_of_m3_mini_needs_no_model_named(run, docs, tmp_path):
    assert run("index", docs, "--out", tmp_path / "index").code == 0
    found = run("search", tmp_path / "index", "how do I read a csv file?", "-k", "1")
    assert found.code == 0, found.err
    assert "csv.md:1" in found.out
    assert "cats.txt" not in found.out


ESCAPE = "\x1b]8;;http://example.org\x1b\\x\x1b[2J\x9b31m\u202e"


def test_nothing_of_a_folder_steers_the_terminal(run, tiny_m3, tmp_path):
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "a\x1b[31m\u202e.md").write_text(f"# Title {ESCAPE}\n\nA text {ESCAPE}")
    (docs / "b\nforged.txt").write_text("Another text.")
    (docs / "binary\x1b.txt").write_bytes(b"\0")
    out = tmp_path / "in\x1b[31mdex"
    made = run("index", docs, "--out", out, "--model", tiny_m3)
    assert made.code == 0, made.err
    found = run("search", out, f"text {ESCAPE}", "--explain", "--model", tiny_m3)
    refused = run("search", out, f"text {ESCAPE}")
    missing = run("index", docs / ESCAPE)
    as_json = run("search", out, "text", "--json", "--model", tiny_m3)
    assert (found.code, refused.code, missing.code, as_json.code) == (0, 1, 1, 0)
    for done in (made, found, refused, missing, as_json):
        assert not set(done.out + done.err) & set("\x1b\x9b\u202e")
    assert "A text" in found.out
    assert any("\x1b" in hit["text"] for hit in json.loads(as_json.out)["hits"])


@pytest.mark.slow
def test_an_endless_word_does_not_flood_the_terminal(run, tiny_m3, tmp_path):
    retriever = HybridRetriever(M3Encoder.from_pretrained(tiny_m3, device="cpu"))
    with pytest.warns(TruncationWarning):
        retriever.add(["x" * 50_000], ids=["y" * 10_000])
    retriever.save(tmp_path / "index")
    found = run("search", tmp_path / "index", "x", "--explain", "--model", tiny_m3)
    assert found.code == 0, found.err
    assert len(found.out) < 10_000


@pytest.mark.slow
def test_the_demo_answers_its_questions_and_opens_its_index_the_second_time(
    run, tmp_path, monkeypatch
):
    # five modules instead of two hundred, for the tests' time
    modules = {"csv", "tempfile", "argparse", "time", "difflib"}
    few = partial(standard_library, modules=modules)
    monkeypatch.setattr("m3_retrievers.cli.demo.standard_library", few)
    monkeypatch.chdir(tmp_path)
    first = run("demo", "--limit", "40")
    assert first.code == 0, first.err
    for text in (
        *QUESTIONS,
        "dense",
        "BM25",
        "ColBERT",
        "hybrid",
        "m3-retrievers search .demo/index",
    ):
        assert text in first.out
    assert "40/40" in first.err
    second = run("demo", "--limit", "40")
    assert "Opened the index of an earlier run" in second.err
    assert second.out == first.out


@pytest.mark.parametrize("command", [[], ["index"], ["search"], ["doctor"]])
def test_h_is_help(command):
    from typer.testing import CliRunner

    from m3_retrievers.cli.app import app

    done = CliRunner().invoke(app, [*command, "-h"])
    assert done.exit_code == 0
    assert "Usage" in done.output
