"""What a saved folder withstands: savers and loaders at once, links, forged files."""

import json
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from durable_documents import put, records, representations
from m3_retrievers.errors import IndexCorruptError, IndexLockedError, SavedIndexError
from m3_retrievers.index.local import LocalIndex
from m3_retrievers.index.snapshot import manifest as manifests
from m3_retrievers.index.snapshot import storage
from m3_retrievers.index.snapshot.files import fingerprint
from m3_retrievers.index.snapshot.storage import read_generation, write_generation
from m3_retrievers.lexical.bm25 import BM25
from m3_retrievers.types.hits import Record

FORK = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork, to start in no time")


def save(folder: Path, number: int) -> None:
    write_generation(
        folder,
        arrays={"dense.vectors": np.full((20, 3), number, np.float32)},
        documents=[Record(str(n), f"text {number}") for n in range(20)],
        settings={"number": number},
    )


def number_in(folder: Path) -> int:
    """Return which save a folder holds, after checking that all of it is of that save."""
    saved = read_generation(folder)
    number = saved.settings["number"]
    assert (saved.arrays["dense.vectors"] == number).all()
    assert {record.text for record in saved.records} == {f"text {number}"}
    return number


def keep_saving(folder: Path, first: int, ready) -> None:
    ready.wait()
    for number in range(first, first + 15):
        save(folder, number)


@pytest.mark.slow
@FORK
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_savers_and_loaders_at_once_meet_one_whole_index_at_any_time(tmp_path):
    folder = tmp_path / "index"
    save(folder, 0)
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    savers = [context.Process(target=keep_saving, args=(folder, n, ready)) for n in (100, 200)]
    for saver in savers:
        saver.start()
    ready.set()
    found = set()
    while any(saver.is_alive() for saver in savers):
        found.add(number_in(folder))
    for saver in savers:
        saver.join()
        assert saver.exitcode == 0
    assert number_in(folder) in (114, 214)
    assert len(list(folder.glob("generation-*"))) == 1
    assert len(found) > 1


def test_a_save_waits_for_another_process_no_longer_than_it_has_patience(tmp_path, monkeypatch):
    save(tmp_path, 1)
    monkeypatch.setattr(storage, "_PATIENCE", 0.01)
    with storage.FileLock(tmp_path / "saving.lock"):
        with pytest.raises(IndexLockedError, match="Another process is saving"):
            save(tmp_path, 2)
        assert number_in(tmp_path) == 1  # a load does not wait


def test_a_load_that_a_save_overtook_reads_the_new_index(tmp_path, monkeypatch):
    save(tmp_path, 1)
    real, overtaken = storage.check_file, []

    def check_file(path, expected, **options):
        if not overtaken:
            overtaken.append(path)
            save(tmp_path, 2)
        real(path, expected, **options)

    monkeypatch.setattr(storage, "check_file", check_file)
    assert number_in(tmp_path) == 2


# Links, and files of others


def test_a_folder_of_somebodys_generations_is_refused_and_left_alone(tmp_path):
    home = tmp_path / "generation-000100"
    home.mkdir()
    save_file({"weight": np.zeros(2, np.float32)}, home / "model.safetensors")
    with pytest.raises(SavedIndexError, match="generation-000100"):
        save(tmp_path, 1)
    assert [path.name for path in home.iterdir()] == ["model.safetensors"]
    assert [path.name for path in tmp_path.iterdir()] == ["generation-000100"]


def test_a_generation_that_is_a_link_is_neither_read_nor_emptied(tmp_path):
    folder, elsewhere = tmp_path / "index", tmp_path / "elsewhere"
    save(folder, 1)
    (folder / "generation-000001").rename(elsewhere)
    (folder / "generation-000001").symlink_to(elsewhere)
    with pytest.raises(SavedIndexError, match="symbolic link"):
        read_generation(folder)
    save(folder, 2)
    assert number_in(folder) == 2
    assert len(list(elsewhere.iterdir())) == 3


@pytest.mark.parametrize("name", ["manifest.json", "saving.lock"])
def test_a_link_where_a_save_writes_is_refused(tmp_path, name):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / name).symlink_to(victim)
    with pytest.raises(SavedIndexError, match="symbolic link"):
        save(tmp_path / "index", 1)
    assert victim.read_text() == "mine"


def test_a_link_in_place_of_a_draft_is_removed_and_not_written_through(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    save(tmp_path / "index", 1)
    (tmp_path / "index" / "manifest.json.new").symlink_to(victim)
    save(tmp_path / "index", 2)
    assert number_in(tmp_path / "index") == 2
    assert victim.read_text() == "mine"


# Forged files: the digests agree, and the content is impossible


@pytest.fixture
def folder(tmp_path):
    index = LocalIndex(weighting=BM25())
    put(index, ["a", "b", "c", "d"], seed=2)
    index.save(tmp_path / "index")
    return tmp_path / "index"


def forge(folder: Path, change) -> None:
    """Change the files of a saved index, and every digest with them."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest.pop("sha256")
    home = folder / f"generation-{manifest['generation']:06d}"
    change(home, manifest)
    if isinstance(manifest["files"], dict):
        for name in manifest["files"]:
            if (home / name).exists():
                manifest["files"][name] = fingerprint(home / name)
    path.write_bytes(manifests.rendered(manifest))


def array(name: str, make):
    """Return a change of one array."""
    file, _, part = name.partition(".")

    def change(home, _):
        path = home / f"{file}.safetensors"
        arrays = load_file(path)
        arrays[part] = np.ascontiguousarray(make(arrays[part].copy()))
        save_file(arrays, path)

    return change


def at(value, place=0):
    def make(values):
        values.reshape(-1)[place] = value
        return values

    return make


def settings(**changes):
    def change(home, _):
        path = home / "settings.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}) + "\n")

    return change


def documents(*lines: str):
    return lambda home, _: (home / "documents.jsonl").write_text("\n".join(lines) + "\n")


def manifest(**changes):
    return lambda _, entries: entries.update(changes)


def without(name):
    return lambda _, entries: entries["files"].pop(name)


A, B, C = '["a", "x", {}]', '["b", "x", {}]', '["c", "x", {}]'
STATE = BM25().state()
FORGED = {
    "dense of another dtype": array("dense.vectors", lambda v: v.astype(np.float64)),
    "dense with NaN": array("dense.vectors", at(np.nan)),
    "dense with infinity": array("dense.vectors", at(np.inf)),
    "dense rows missing": array("dense.vectors", lambda v: v[:-1]),
    "dense of one axis": array("dense.vectors", lambda v: v.reshape(-1)),
    "a column below 0": array("sparse.indices", at(-1)),
    "a column past the width": array("sparse.indices", at(10_000)),
    "columns out of order": array("sparse.indices", lambda v: v[::-1]),
    "a column twice": array("sparse.indices", lambda v: v[:1].repeat(len(v))),
    "indices of another dtype": array("sparse.indices", lambda v: v.astype(np.float32)),
    "indices of 32 bits": array("sparse.indices", lambda v: v.astype(np.int32)),
    "weights of integers": array("sparse.data", lambda v: v.astype(np.int64)),
    "weights with NaN": array("sparse.data", at(np.nan)),
    "fewer weights": array("sparse.data", lambda v: v[:-1]),
    "offsets that fall": array("sparse.indptr", at(99, 1)),
    "offsets below 0": array("sparse.indptr", at(-1, 1)),
    "no offsets": array("sparse.indptr", lambda v: v[:0]),
    "a huge shape": array("sparse.shape", at(2**62, 1)),
    "more rows than there are": array("sparse.shape", at(2**40, 0)),
    "a shape of three": array("sparse.shape", lambda v: np.append(v, 1)),
    "token vectors of another dtype": array("colbert.vectors", lambda v: v.astype(np.float32)),
    "token vectors said to be int8": settings(colbert_dtype="int8"),
    "a pooling factor of 0": settings(colbert_pool_factor=0),
    "token vectors with NaN": array("colbert.vectors", at(np.nan)),
    "token offsets past the end": array("colbert.offsets", at(10**9, -1)),
    "token offsets below 0": array("colbert.offsets", at(-5, 1)),
    "token offsets without end": array("colbert.offsets", lambda v: v[:-1]),
    "a count of a term without a name": array("bm25.shape", at(10_000, 1)),
    "an id twice": documents(A, B, C, A),
    "documents missing": documents(A, B, C),
    "a document too many": documents(A, B, C, '["d", "x", {}]', '["e", "x", {}]'),
    "an id that is a number": documents(A, B, C, '[1, "x", {}]'),
    "metadata that is a list": documents(A, B, C, '["d", "x", []]'),
    "metadata with NaN": documents(A, B, C, '["d", "x", {"a": NaN}]'),
    "metadata without end": documents(A, B, C, f'["d", "x", {{"a": {"[" * 9_000}{"]" * 9_000}}}]'),
    "a document of two": documents(A, B, C, '["d", "x"]'),
    "a document that is null": documents(A, B, C, "null"),
    "a document that is no JSON": documents(A, B, C, "{"),
    "modes that are no list": settings(modes="dense"),
    "an unknown mode": settings(modes=["dense", "colour"]),
    "an unknown precision": settings(colbert_dtype="int3"),
    "extra that is a list": settings(extra=[]),
    "a weighting that is a list": settings(weighting=[1]),
    "a weighting without parameters": settings(weighting={}),
    "a vocabulary with a term twice": settings(weighting={**STATE, "vocabulary": ["a", "a"]}),
    "a vocabulary of numbers": settings(weighting={**STATE, "vocabulary": [1, 2]}),
    "a parameter out of range": settings(weighting={**STATE, "k1": -1}),
    "settings that are a list": lambda home, _: (home / "settings.json").write_text("[]"),
    "settings that are no JSON": lambda home, _: (home / "settings.json").write_text("{"),
    "arrays that are none": lambda home, _: (home / "dense.safetensors").write_bytes(b"x" * 99),
    "a file left out": without("dense.safetensors"),
    "documents left out": without("documents.jsonl"),
    "a generation that is a word": manifest(generation="../.."),
    "a generation of 0": manifest(generation=0),
    "a version that is a word": manifest(version="1"),
    "files in a list": manifest(files=["settings.json"]),
    "files that are numbers": manifest(files={"settings.json": 1, "documents.jsonl": 2}),
    "a model that is a word": manifest(model="m3"),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_file_is_refused_when_it_is_loaded(folder, name):
    forge(folder, FORGED[name])
    with pytest.raises(IndexCorruptError):
        LocalIndex.load(folder, weighting=BM25.from_state)


def test_a_folder_that_was_not_forged_is_loaded(folder):
    forge(folder, lambda *_: None)
    assert LocalIndex.load(folder, weighting=BM25.from_state).ids == ("a", "b", "c", "d")


def test_what_cannot_be_checked_is_never_written(tmp_path):
    index = LocalIndex()
    index.add(records(["a"]), representations(1))
    index.delete(["a"])
    index.save(tmp_path)  # no rows, no widths: the edge of what a check admits
    assert LocalIndex.load(tmp_path).ids == ()
