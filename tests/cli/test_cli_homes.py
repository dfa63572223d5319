"""`index --home`, `search ADDRESS` and `copy`: a home that keeps each change itself."""

import json

import pytest

from m3_retrievers.index import LocalIndex, MilvusIndex

pytestmark = pytest.mark.slow


@pytest.fixture
def home(tmp_path):
    return f"milvus:{tmp_path / 'm.db'}"


def test_a_folder_lives_in_milvus_and_is_asked_there(run, docs, tiny_m3, home, tmp_path):
    made = run("index", docs, "--home", home, "--model", tiny_m3)
    assert made.code == 0
    assert f"2 passages of 2 files in {home} (2 new or changed" in made.out
    assert not (tmp_path / "my-index").exists()

    (docs / "cats.txt").unlink()
    again = run("index", docs, "--home", home, "--model", tiny_m3)
    assert "1 passages of 1 files" in again.out
    assert "(0 new or changed, 1 removed)" in again.out

    options = ("--model", tiny_m3, "--json")
    asked = run("search", home, "rows of a file", *options)
    [hit] = json.loads(asked.out)["hits"]
    assert hit["id"].startswith("csv.md#")
    assert set(hit["scores"]) == {"dense", "sparse", "colbert", "hybrid"}

    out = tmp_path / "saved"
    run("index", docs, "--out", out, "--model", tiny_m3)
    [same] = json.loads(run("search", out, "rows of a file", *options).out)["hits"]
    assert hit["scores"] == pytest.approx(same["scores"], abs=1e-3)  # ColBERT in float16


def test_a_home_s_model_is_not_loaded_unasked(run, docs, tiny_m3, home):
    run("index", docs, "--home", home, "--model", tiny_m3)
    done = run("search", home, "rows")
    assert done.code == 1
    assert f"The index in {home!r} was built by the model" in done.message


def test_an_index_is_copied_without_encoding(run, docs, tiny_m3, home, tmp_path, monkeypatch):
    out = tmp_path / "saved"
    run("index", docs, "--out", out, "--model", tiny_m3)
    done = run("copy", out, home, "--json")
    assert json.loads(done.out) == {"source": str(out), "target": home, "copied": 2}
    assert run("copy", out, home).out.startswith("0 documents copied")
    asked = run("search", home, "rows of a file", "--model", tiny_m3, "--json")
    assert len(json.loads(asked.out)["hits"]) == 2


def test_a_home_of_other_documents_is_not_emptied(run, docs, tiny_m3, home, tmp_path):
    run("index", docs, "--out", tmp_path / "saved", "--model", tiny_m3)
    index = LocalIndex.load(tmp_path / "saved")
    [one] = index.get(index.where(None)[:1])
    kept = MilvusIndex(home.removeprefix("milvus:"))
    kept.add([type(one)("mine", "text", {})], index.vectors([one.id]))
    kept.close()
    done = run("index", docs, "--home", home, "--model", tiny_m3)
    assert done.code == 1
    assert "which holds 'mine': bringing it up to date would remove that" in done.message


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("search", "milvus:nowhere.db", "q"), "expected an index at 'milvus:nowhere.db'"),
        (("search", "mysql://me:secret@host/db", "q"), "begins with 'mysql:'"),
        (("copy", "nowhere", "milvus:other.db"), "expected an index at 'nowhere', got nothing"),
    ],
)
def test_an_address_that_is_none_ends_as_a_message(run, command, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run(*command)
    assert done.code == 1
    assert message in done.message
    assert "secret" not in done.message
    assert list(tmp_path.iterdir()) == []
