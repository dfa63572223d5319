"""`index`: what it makes of a folder, where it may write, and what Ctrl-C leaves."""

import json
import os
import signal

import pytest

from m3_retrievers import HybridRetriever, M3Encoder


@pytest.fixture
def encoded(monkeypatch) -> list[str]:
    """Every text that is encoded as a document from here on."""
    texts: list[str] = []
    encode = M3Encoder.encode_documents

    def listed(self, batch, **options):
        texts.extend(batch)
        return encode(self, batch, **options)

    monkeypatch.setattr(M3Encoder, "encode_documents", listed)
    return texts


def test_an_index_is_brought_up_to_date(run, docs, tiny_m3, tmp_path, encoded):
    out = tmp_path / "index"
    options = ("--out", out, "--model", tiny_m3)
    made = run("index", docs, *options)
    assert "2 passages of 2 files" in made.out
    assert f"m3-retrievers search {out} 'your question' --model {tiny_m3}" in made.out
    assert len(encoded) == 2

    encoded.clear()
    before = (out / "manifest.json").read_bytes()
    unchanged = run("index", docs, *options)
    assert "(0 new or changed, 0 removed)" in unchanged.out
    assert encoded == []
    assert (out / "manifest.json").read_bytes() == before

    (docs / "cats.txt").unlink()
    (docs / "dogs.txt").write_text("Dogs bark.")
    again = run("index", docs, *options)
    assert "2 passages of 2 files" in again.out
    assert "(1 new or changed, 1 removed)" in again.out
    assert encoded == ["Dogs bark."]


def test_a_durable_file_is_brought_up_to_date_and_searched(run, docs, tiny_m3, tmp_path, encoded):
    out = tmp_path / "notes.index"
    options = ("--out", out, "--model", tiny_m3)
    assert "2 passages of 2 files" in run("index", docs, *options).out
    (docs / "cats.txt").unlink()
    (docs / "dogs.txt").write_text("Dogs bark.")
    encoded.clear()
    assert "(1 new or changed, 1 removed)" in run("index", docs, *options).out
    assert encoded == ["Dogs bark."]
    assert out.is_file()
    found = json.loads(run("search", out, "dogs", "--model", tiny_m3, "--json").out)
    assert {hit["metadata"]["source"] for hit in found["hits"]} == {"csv.md", "dogs.txt"}
    unnamed = run("search", out, "dogs")
    assert unnamed.code == 1
    assert f"--model {tiny_m3}" in unnamed.message


def test_searching_a_durable_file_that_is_not_there_makes_none(run, tiny_m3, tmp_path):
    for options in ([], ["--model", tiny_m3]):
        done = run("search", tmp_path / "no.index", "q", *options)
        assert done.code == 1
        assert "no" in done.message
    assert not (tmp_path / "no.index").exists()


def test_a_result_can_be_read_by_programs(run, docs, tiny_m3, tmp_path):
    (docs / "picture.png").write_bytes(b"png")
    out = tmp_path / "index"
    done = run("index", docs, "--out", out, "--model", tiny_m3, "--json")
    assert json.loads(done.out) == {
        "index": str(out),
        "passages": 2,
        "files": 2,
        "changed": 2,
        "removed": 0,
        "left_out": {"of another kind": 1},
        "finished": True,
    }
    assert "1 file of another kind" in done.err


# Words, code with long names, a line without spaces, and a language without any.
TEXTS = {
    "prose.md": "the river rose three metres overnight " * 200,
    "code.py": "def f():\n" + "    some_long_name = other.long_name[12] + {1: 2}\n" * 100,
    "data.txt": "QWxhZGRpbjpvcGVuIHNlc2FtZQ" * 200,
    "zh.txt": "图书管理员很快找到了那一页。" * 200,
}


@pytest.mark.parametrize("options", [(), ("--chunk", 64), ("--chunk", 64, "--overlap", 16)])
@pytest.mark.parametrize("model", ["tiny_m3", "other_m3"])
def test_no_passage_is_longer_than_the_model_reads(run, tmp_path, request, model, options):
    folder = request.getfixturevalue(model)
    docs = tmp_path / "docs"
    docs.mkdir()
    for name, text in TEXTS.items():
        (docs / name).write_text(text)
    done = run(
        "index", docs, "--out", tmp_path / "index", "--model", folder,
        "--truncation", "error", *options,
    )  # fmt: skip
    assert done.code == 0, done.err
    encoder = M3Encoder.from_pretrained(folder, device="cpu")
    retriever = HybridRetriever.load(tmp_path / "index", encoder)
    records = retriever.get(retriever.index.ids)
    limit = options[1] if options else 256
    lengths = [len(encoder.tokenizer.tokenize(record.text)) for record in records]
    assert max(lengths) <= limit
    # most are well filled: the limit is the tokenizer's own, and no guess by words
    assert sum(length > limit // 2 for length in lengths) > len(lengths) // 2


def test_an_overlap_makes_more_passages(run, tiny_m3, tmp_path):
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "prose.md").write_text(TEXTS["prose.md"])
    counts = []
    for overlap in (0, 32):
        options = ("--model", tiny_m3, "--chunk", 64, "--overlap", overlap, "--json")
        done = run("index", docs, "--out", tmp_path / f"index{overlap}", *options)
        counts.append(json.loads(done.out)["passages"])
    assert counts[1] > counts[0] * 1.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--chunk", "100000"], "reads at once, got 100000"),
        (["--chunk", "1"], "--chunk expects 16 to"),
        (["--chunk", "64", "--overlap", "40"], "overlap expects 0 to 32"),
        (["--truncation", "cut"], "truncation expects one of"),
    ],
)
def test_options_that_make_no_sense_are_refused(run, docs, tiny_m3, tmp_path, options, message):
    done = run("index", docs, "--out", tmp_path / "index", "--model", tiny_m3, *options)
    assert done.code == 1
    assert message in done.message
    assert not (tmp_path / "index").exists()


def test_windows_read_passages_longer_than_the_model(run, docs, other_m3, tmp_path):
    (docs / "long.txt").write_text("the river rose " * 500)
    options = ("--model", other_m3, "--chunk", "2000", "--truncation", "windows")
    done = run("index", docs, "--out", tmp_path / "index", *options)
    assert done.code == 0, done.err
    encoder = M3Encoder.from_pretrained(other_m3, device="cpu")
    [record] = HybridRetriever.load(tmp_path / "index", encoder).get(["long.txt#1"])
    assert 1_900 < len(encoder.tokenizer.tokenize(record.text)) <= 2_000


def refused_places(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.doc").write_text("mine")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "manifest.json").write_text("{}")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    return {
        "file": "is no durable index",
        "file/index": "cannot",
        "full": "holds 'thesis.doc'",
        "broken": "is torn, was changed",
        "nowhere": "a link to nothing",
    }


def test_a_place_that_cannot_take_an_index_is_refused_first(run, docs, tmp_path, monkeypatch):
    monkeypatch.setattr(M3Encoder, "from_pretrained", pytest.fail)
    for place, message in refused_places(tmp_path).items():
        done = run("index", docs, "--out", tmp_path / place)
        assert done.code == 1
        assert message in done.message
    # root may write anywhere: the system's answer is made up
    monkeypatch.setattr(os, "access", lambda path, mode, **_: not mode & os.W_OK)
    done = run("index", docs, "--out", tmp_path / "new" / "index")
    assert "can be written to" in done.message
    assert (tmp_path / "file").read_text() == "mine"


def test_an_index_of_another_model_is_refused_before_encoding(
    run, docs, tiny_m3, other_m3, tmp_path, encoded
):
    out = tmp_path / "index"
    run("index", docs, "--out", out, "--model", tiny_m3)
    encoded.clear()
    done = run("index", docs, "--out", out, "--model", other_m3)
    assert done.code == 1
    assert "was built by" in done.message
    assert encoded == []


def test_an_index_of_other_documents_is_not_emptied(run, docs, encoder, tiny_m3, tmp_path):
    retriever = HybridRetriever(encoder)
    retriever.add(["mine"], ids=["a"], metadata=[{"source": "b"}])
    retriever.save(tmp_path / "index")
    done = run("index", docs, "--out", tmp_path / "index", "--model", tiny_m3)
    assert done.code == 1
    assert "an index that this command made" in done.message
    assert HybridRetriever.load(tmp_path / "index", encoder).index.ids == ("a",)


@pytest.fixture
def many(tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(60):
        (folder / f"{number:02}.txt").write_text(f"text number {number}")
    return folder


def press_ctrl_c(monkeypatch, *, at: int, times: int = 1):
    """Let Ctrl-C be pressed while a batch is encoded."""
    encode = M3Encoder.encode_documents
    batches = []

    def pressed(self, batch, **options):
        batches.append(batch)
        if len(batches) == at:
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)
        return encode(self, batch, **options)

    monkeypatch.setattr(M3Encoder, "encode_documents", pressed)
    return batches


@pytest.fixture
def listening():
    """Ctrl-C as a terminal sends it: what a shell starts in the background is deaf to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("listening")
def test_ctrl_c_keeps_what_is_done_and_the_next_run_goes_on(
    run, many, encoder, tiny_m3, tmp_path, monkeypatch
):
    out = tmp_path / "index"
    options = ("--out", out, "--model", tiny_m3, "--json")
    with monkeypatch.context() as patch:
        batches = press_ctrl_c(patch, at=2)
        stopped = run("index", many, *options)
    done = sum(map(len, batches))
    assert stopped.code == 130
    assert 0 < done < 60
    assert f"Stopped: {done} of 60 new or changed passages are kept" in stopped.message
    assert json.loads(stopped.out)["finished"] is False
    retriever = HybridRetriever.load(out, encoder)
    assert len(retriever) == done
    assert len(retriever.search("text number 1", k=100)) == done
    again = json.loads(run("index", many, *options).out)
    assert (again["passages"], again["changed"], again["finished"]) == (60, 60 - done, True)


@pytest.mark.usefixtures("listening")
def test_ctrl_c_twice_stops_at_once_and_leaves_the_index_as_it_was(
    run, docs, many, encoder, tiny_m3, tmp_path, monkeypatch
):
    out = tmp_path / "index"
    options = ("--out", out, "--model", tiny_m3)
    run("index", docs, *options)
    before = HybridRetriever.load(out, encoder).index.ids
    with monkeypatch.context() as patch:
        press_ctrl_c(patch, at=2, times=2)
        assert run("index", many, *options).code == 130
    assert HybridRetriever.load(out, encoder).index.ids == before
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_bar_moves_with_the_batches(run, many, tiny_m3, tmp_path, monkeypatch):
    moves = []

    def shown(bar, count):
        if not bar.disable:
            moves.append(count)

    monkeypatch.setattr("tqdm.auto.tqdm.update", shown)
    run("index", many, "--out", tmp_path / "index", "--model", tiny_m3)
    assert sum(moves) == 60
    assert len(moves) > 2
