"""What is MilvusIndex's own: its file, its options, its limits, and arrays of vectors."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse as sp

import m3_retrievers.index.milvus.collection as collection_module
import milvus_arrays as arrays
from m3_retrievers.errors import (
    IndexCorruptError,
    IndexLockedError,
    IndexUnavailableError,
    InputError,
    MissingExtraError,
    SavedIndexError,
)
from m3_retrievers.index import LocalIndex, MilvusIndex
from m3_retrievers.index.milvus.connection import Connection, shown_uri
from m3_retrievers.index.milvus.rows import given, key_of, row_of, sparse_matrix, sparse_rows
from m3_retrievers.testing import samples
from m3_retrievers.types.hits import Query, Record
from m3_retrievers.types.plan import Plan
from m3_retrievers.types.representations import Representations

pytestmark = pytest.mark.slow

COUNT = 20
RECORDS, MADE = samples.records(COUNT), samples.represent(COUNT)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "m.db")


@pytest.fixture
def index(path: str) -> Iterator[MilvusIndex]:
    index = MilvusIndex(path)
    index.add(RECORDS, MADE)
    yield index
    index.close()


@pytest.fixture(scope="module")
def local() -> LocalIndex:
    exact = LocalIndex(colbert_dtype="float32")
    exact.add(RECORDS, MADE)
    return exact


class Requests:
    """Counts the calls that reach the engine."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[tuple[str, str | None]] = []
        call = Connection.call

        def counted(connection: Connection, method: str, **arguments: object) -> object:
            self.made.append((method, arguments.get("anns_field")))
            return call(connection, method, **arguments)

        monkeypatch.setattr(Connection, "call", counted)


def test_a_search_is_a_request_a_leg_and_two_for_the_candidates(
    index: MilvusIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = Requests(monkeypatch)
    index.search(samples.question(), Plan(), k=5)
    legs = [("search", "dense"), ("search", "sparse")]
    assert requests.made == [*legs, ("query", None), ("query", None)]


def test_a_file_that_was_closed_opens_with_all_that_was_in_it(
    index: MilvusIndex, path: str, local: LocalIndex
) -> None:
    index.upsert([Record("d03", "long " * 30_000, {"a": [1]})], MADE[[0]])
    index.delete(["d05"])
    index.bind({"name": "m", "fingerprint": "f"}, extra={"legs": ["dense"]})
    index.close()
    again = MilvusIndex(path)
    assert again.note() == {
        "model": {"name": "m", "fingerprint": "f"},
        "extra": {"legs": ["dense"]},
    }
    assert len(again) == COUNT - 1
    assert again.get(["d03"]) == [Record("d03", "long " * 30_000, {"a": [1]})]
    assert again.where(None)[-1] == "d03"
    kept = again.vectors(["d03", "d07"])
    assert np.array_equal(kept.require("dense"), MADE.require("dense")[[0, 7]])
    again.close()


def test_another_process_is_told_that_the_file_is_in_use(index: MilvusIndex, path: str) -> None:
    code = "import sys; from m3_retrievers.index import MilvusIndex; MilvusIndex(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=False
    )
    assert done.returncode
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"m3_retrievers.errors.{IndexLockedError.__name__}: expected")
    assert "for this process alone" in last
    assert len(index) == COUNT
    index.close()
    again = subprocess.run([sys.executable, "-c", code, path], capture_output=True, check=False)
    assert again.returncode == 0


def test_a_place_that_cannot_be_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("of somebody else")
    for place in (tmp_path / "file" / "m.db", tmp_path / "file"):
        with pytest.raises(SavedIndexError, match="expected a file of Milvus Lite"):
            MilvusIndex(str(place))
    assert (tmp_path / "file").read_text() == "of somebody else"


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(IndexUnavailableError, match=r"'http://127.0.0.1:9'.*no answer") as raised:
        MilvusIndex("http://me:secret@127.0.0.1:9", token="a:token", timeout=1.0)
    assert "secret" not in str(raised.value)
    assert "token" not in str(raised.value).replace("the token", "")


def test_an_address_is_shown_without_its_password() -> None:
    assert shown_uri("http://me:pw@host:1/db?key=pw") == "http://host:1/db"
    with pytest.raises(InputError, match="'ftp'"):
        MilvusIndex("ftp://me:pw@host")


@pytest.mark.parametrize("package", ["pymilvus", "milvus_lite"])
def test_without_the_package_the_error_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, package: str, path: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=r"m3-retrievers\[milvus\]"):
        MilvusIndex(path)


# What it keeps


def test_options_of_what_is_there_have_to_agree(index: MilvusIndex, path: str) -> None:
    for options in ({"modes": ["dense"]}, {"colbert": "recompute"}):
        with pytest.raises(SavedIndexError, match=r"keeps \('dense', 'sparse', 'colbert'\)"):
            MilvusIndex(path, **options)
    with pytest.raises(InputError, match=r"2\.6\.4"):
        MilvusIndex(path, colbert="engine")
    for options in ({}, {"modes": ("colbert", "sparse", "dense")}, {"colbert": "beside"}):
        again = MilvusIndex(path, **options)
        assert len(again) == COUNT
        again.close()
    with pytest.raises(InputError, match="'dense' or 'sparse' among them"):
        MilvusIndex(path, modes=["colbert"])
    with pytest.raises(InputError, match="colbert expects"):
        MilvusIndex(path, colbert="somewhere")


def test_recomputed_vectors_are_not_kept(path: str) -> None:
    index = MilvusIndex(path, colbert="recompute")
    index.add(RECORDS, MADE.select(["dense", "sparse"]))
    assert index.modes == {"dense", "sparse"}
    encoded = []

    def encode(texts, outputs):
        encoded.append((len(texts), tuple(outputs)))
        return samples.represent(len(texts)).select(list(outputs))

    found = index.search(samples.question(), Plan(), k=3, encode=encode)
    assert len(found.hits) == 3
    assert encoded == [(COUNT, ("colbert",))]
    index.close()
    again = MilvusIndex(path)
    assert again.modes == {"dense", "sparse"}
    again.close()


def test_two_collections_of_a_file_are_two_indexes(index: MilvusIndex, path: str) -> None:
    other = MilvusIndex(path, collection="others", modes=["sparse"])
    assert len(other) == 0
    other.add(RECORDS[:1], MADE[:1])
    assert (len(other), len(index)) == (1, COUNT)
    other.close()
    assert len(index) == COUNT


def test_what_another_program_left_is_no_index(index: MilvusIndex, path: str) -> None:
    index._parts.write_record("settings", {"format": 7})
    with pytest.raises(IndexCorruptError, match="expected an index of this version"):
        MilvusIndex(path)


@pytest.mark.parametrize(
    ("record", "what"),
    [
        (Record("x" * 70_000, ""), "its id"),
        (Record("d", "", {"a": list(range(3_000))}), "metadata's values"),
        (Record("d", "", {str(n): "b" * 100 for n in range(300)}), "metadata's values"),
    ],
    ids=["id", "values", "orders"],
)
def test_more_than_a_document_can_be_found_by_is_refused(
    index: MilvusIndex, record: Record, what: str
) -> None:
    with pytest.raises(InputError, match=f"65,535 bytes of {what}"):
        index.add([Record("fine", ""), record], MADE[:2])
    assert len(index) == COUNT


# Exactness


def test_no_small_term_is_dropped(path: str) -> None:
    rows = sp.csr_array(np.array([[1e-6, 0, 0], [0, 1, 0], [1e-3, 1, 1e-6]], np.float32))
    index = MilvusIndex(path, modes=["sparse"])
    index.add(samples.records(3), Representations(sparse=rows))
    asked = sp.csr_array(np.array([[1, 0, 1e-4]], np.float32))
    found = index.recall(Query("", Representations(sparse=asked)), "sparse", k=9)
    assert found.ids == ("d02", "d00")
    assert found.scores == pytest.approx([1e-3, 1e-6], rel=1e-5)
    index.close()


def test_ties_with_the_last_hit_are_all_seen(path: str) -> None:
    index = MilvusIndex(path, modes=["dense"])
    dense = np.tile(np.float32([[1, 0]]), (60, 1))
    dense[0] = [0, 1]
    index.add(samples.records(60)[::-1], Representations(dense=dense))
    query = Query("", Representations(dense=np.float32([[1, 0]])))
    found = index.recall(query, "dense", k=3)
    assert found.ids == ("d58", "d57", "d56")
    index.close()


def test_beyond_what_milvus_answers_it_is_ranked_here(
    index: MilvusIndex, local: LocalIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = samples.question()
    requests = Requests(monkeypatch)
    found = index.recall(query, "dense", k=20_000)
    assert found.ids == local.recall(query, "dense", k=None).ids
    assert ("search", "dense") not in requests.made


def test_pages_and_batches_are_cut_without_loss(
    path: str, local: LocalIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collection_module, "_KEYS_A_REQUEST", 3)
    monkeypatch.setattr(collection_module, "_REQUEST_BYTES", 300_000)
    monkeypatch.setattr(collection_module, "_PENDING", 1)
    monkeypatch.setattr("m3_retrievers.index.milvus.documents._ROWS_A_PAGE", 2)
    monkeypatch.setattr("m3_retrievers.index.milvus.documents._ROWS_WITH_PARTS", 2)
    monkeypatch.setattr("m3_retrievers.index.milvus.ranking._KEYS_A_SEARCH", 4)
    index = MilvusIndex(path)
    index.add(RECORDS, MADE)
    ids = local.where(None)
    assert index.where(None) == ids
    query = samples.question()
    for mode in ("dense", "sparse", "colbert"):
        ranked = index.recall(query, mode, k=5, ids=ids[3:])
        assert ranked.ids == local.recall(query, mode, k=5, ids=ids[3:]).ids
    assert index.delete(ids[:7]) == ids[:7]
    assert len(index) == COUNT - 7
    index.close()


def test_a_row_carries_any_text_and_no_key_of_a_user() -> None:
    for text in ("", "a\ud83d", "\x1abase64:YQ==", "日本 🦊", 'quote " and \\'):
        row, beside = row_of(Record(text, text, {text: text}), 1)
        assert given(row["id"]) == given(row["text"]) == text
        assert not beside
        assert row["text"].encode().decode() == row["text"]  # which protobuf asks of it
        assert set(key_of(text)) <= set("0123456789abcdef")


def test_sparse_rows_come_back_in_order() -> None:
    matrix = sp.csr_array(np.float32([[0, 0, 0], [0, 2, 1]]))
    rows = sparse_rows(matrix)
    assert all(rows)  # Milvus takes no empty row
    assert (sparse_matrix(rows, 3) != matrix).nnz == 0


# Arrays of vectors: nothing of this has run on a server of Milvus


@pytest.fixture
def recorded(tmp_path: Path) -> Iterator[tuple[str, arrays.Recorder]]:
    socket = f"unix:{tmp_path / 's'}"
    server, db, recorder = arrays.serve(tmp_path / "double", socket)
    yield socket, recorder
    server.stop(None)
    db.close()


def test_arrays_of_vectors_are_asked_of_a_server_as_it_takes_them(
    recorded: tuple[str, arrays.Recorder], local: LocalIndex
) -> None:
    address, recorder = recorded
    index = MilvusIndex(address, colbert="engine")
    index.add(RECORDS, MADE)
    [struct] = recorder.schemas[-1].struct_array_fields
    [field] = struct.fields
    told = {pair.key: pair.value for pair in field.type_params}
    assert (struct.name, field.name) == ("colbert", "v")
    assert told == {"dim": str(samples.WIDTH), "max_capacity": "4096"}
    assert arrays.params(recorder.indexes["colbert[v]"])["metric_type"] == "MAX_SIM_IP"
    assert np.array_equal(recorder.vectors[key_of("d03")], MADE.require("colbert")[3])

    query, ids = samples.question(), ["d03", "d01", "d07"]
    scores = index.score(query, "colbert", ids)
    assert scores == pytest.approx(local.score(query, "colbert", ids), abs=1e-5)
    [search] = recorder.searches
    assert all(key_of(id) in search.dsl for id in ids)
    assert search.dsl.startswith("key in [")
    hits = index.search(query, Plan(), k=5).hits
    exact = local.search(query, Plan(), k=5).hits
    assert [hit.id for hit in hits] == [hit.id for hit in exact]
    assert len(recorder.searches) == 2
    index.close()


def test_a_document_with_too_many_vectors_for_an_array_is_refused(
    recorded: tuple[str, arrays.Recorder],
) -> None:
    index = MilvusIndex(recorded[0], colbert="engine")
    rows = [np.ones((4097, 2), np.float32)]
    made = Representations(
        dense=MADE[:1].dense,
        sparse=MADE[:1].sparse,
        colbert=type(MADE.require("colbert")).from_rows(rows),
    )
    with pytest.raises(InputError, match=r"at most 4,096 vectors .* got 4,097"):
        index.add(RECORDS[:1], made)
    assert len(index) == 0
    index.close()


def test_what_came_in_is_flushed_however_long_that_takes(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search must not fail because Milvus Lite is busy with what was added before."""
    monkeypatch.setattr(collection_module, "_MOST_PENDING", 8)
    index = MilvusIndex(path, modes=["dense"], timeout=5.0)
    waited: list[object] = []
    call = Connection.call

    def noted(connection: Connection, method: str, **arguments: object) -> object:
        waited.extend([arguments.get("timeout")] if method == "flush" else [])
        return call(connection, method, **arguments)

    monkeypatch.setattr(Connection, "call", noted)
    for at in range(0, COUNT, 5):
        index.add(RECORDS[at : at + 5], MADE[np.arange(at, at + 5)])
    assert waited == [collection_module._PATIENCE] * 2
    assert index.where(None) == [record.id for record in RECORDS]
    index.close()
