"""Large token vectors stay in their file, and are checked as they are read."""

import copy
import pickle

import numpy as np
import pytest

from m3_retrievers import LocalIndex
from m3_retrievers.errors import IndexCorruptError
from m3_retrievers.index.snapshot import storage, tensors
from m3_retrievers.scoring import late_interaction
from m3_retrievers.types.hits import Query, Record
from m3_retrievers.types.packed import MultiVectors
from m3_retrievers.types.representations import Representations


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(storage, "_IN_FILE_FROM", 1)
    monkeypatch.setattr(tensors, "_BLOCK_BYTES", 5 * 8 * 2)  # five vectors of eight float16


def texts(count, *, seed=0):
    rng = np.random.default_rng(seed)
    rows = [rng.standard_normal((int(rng.integers(1, 6)), 8)) for _ in range(count)]
    return MultiVectors.from_rows([row.astype(np.float32) for row in rows])


QUERY = Query("", Representations(colbert=texts(1, seed=7)))


@pytest.fixture(params=["float16", "int8"])
def saved(request, tmp_path):
    index = LocalIndex(modes=("colbert",), colbert_dtype=request.param)
    records = [Record(str(n), "") for n in range(40)]
    index.add(records, Representations(colbert=texts(40)))
    index.delete(["3", "4", "20"])
    index.save(tmp_path / "index")
    return index, tmp_path / "index"


def scores(index):
    return index.score(QUERY, "colbert", index.ids)


@pytest.mark.parametrize("compiled_from", [0, 1 << 62])
def test_an_index_in_its_file_scores_and_goes_on_as_the_one_that_was_saved(
    saved, compiled_from, monkeypatch
):
    monkeypatch.setattr(late_interaction, "_COMPILED_FROM", compiled_from)
    index, folder = saved
    loaded = LocalIndex.load(folder)
    vectors = loaded._table.stores.colbert._kept._parts[0]
    assert isinstance(vectors, tensors.FileRows)
    assert not vectors._checked.any()
    np.testing.assert_array_equal(scores(loaded), scores(index))
    for one in (index, loaded):
        one.add([Record("new", "")], Representations(colbert=texts(1, seed=3)))
        one.delete(["0", "39"])
    for one in (loaded, copy.deepcopy(loaded), pickle.loads(pickle.dumps(loaded))):
        np.testing.assert_array_equal(scores(one), scores(index))
    loaded.save(folder)  # over the file it reads from
    np.testing.assert_array_equal(scores(LocalIndex.load(folder, verify=True)), scores(index))


def test_a_changed_block_is_noticed_when_it_is_read_and_no_later(saved):
    index, folder = saved
    (path,) = folder.glob("generation-*/colbert.safetensors")
    content = bytearray(path.read_bytes())
    content[-3] ^= 1  # of the last vector
    path.write_bytes(content)
    loaded = LocalIndex.load(folder)
    first, last = loaded.ids[:3], loaded.ids[-1:]
    np.testing.assert_array_equal(
        loaded.score(QUERY, "colbert", first), index.score(QUERY, "colbert", first)
    )
    for _ in range(2):
        with pytest.raises(IndexCorruptError, match=r"colbert\.safetensors.*SHA-256"):
            loaded.score(QUERY, "colbert", last)
    with pytest.raises(IndexCorruptError, match=r"colbert\.safetensors.*SHA-256"):
        LocalIndex.load(folder, verify=True)


def test_a_torn_file_is_noticed_at_once(saved):
    _, folder = saved
    (path,) = folder.glob("generation-*/colbert.safetensors")
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(IndexCorruptError, match="torn"):
        LocalIndex.load(folder)


def test_a_save_reads_what_is_kept_piece_by_piece(saved, monkeypatch):
    index, folder = saved
    copies = []
    real = tensors.Pieces.__array__
    monkeypatch.setattr(
        tensors.Pieces, "__array__", lambda *given: copies.append(given) or real(*given)
    )
    index.delete(["10"])
    index.save(folder)
    assert not copies


def test_digests_do_not_depend_on_how_the_rows_are_cut():
    rows = np.arange(23 * 8, dtype=np.float16).reshape(23, 8)
    whole = tensors.block_digests(rows)
    assert whole.shape == (5, 32)
    for cuts in ([1], [5, 10], [3, 4, 22]):
        pieces = tensors.Pieces(np.split(rows, cuts), rows=23, width=8, dtype=rows.dtype)
        np.testing.assert_array_equal(tensors.block_digests(pieces), whole)
