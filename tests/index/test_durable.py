"""DurableIndex: equal to LocalIndex to the bit, in one process, in several, and opened again."""

import copy
import os
import pickle
import sqlite3

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from durable_documents import QUERY, put, records, representations
from m3_retrievers.errors import (
    DuplicateIdError,
    IndexCorruptError,
    IndexLockedError,
    IndexModelError,
    IndexUnavailableError,
    InputError,
    SavedIndexError,
)
from m3_retrievers.index import table
from m3_retrievers.index.durable.index import DurableIndex
from m3_retrievers.index.local import LocalIndex
from m3_retrievers.lexical.bm25 import BM25
from m3_retrievers.types.plan import HybridWeights, Plan

PLAN = Plan(legs=("dense", "sparse", "bm25"), weights=HybridWeights(1.0, 0.5, 0.7))
MODES = ("dense", "sparse", "bm25", "colbert")


def opened(path, **options):
    return DurableIndex(path, restore=BM25.from_state, **options)


def made(path, **options):
    return DurableIndex(path, weighting=BM25(), **options)


def answers(index):
    """Return all that an index says, every score to its last bit."""
    found = {"ids": index.ids, "records": index.get(index.ids)}
    for filter in (None, {"year": {"$gte": 3}}):
        for mode in MODES:
            ranking = index.recall(QUERY, mode, k=None, filter=filter)
            found[mode, str(filter)] = ranking.ids, ranking.scores.tolist()
        found[str(filter)] = index.search(QUERY, PLAN, k=5, filter=filter).hits
    kept = index.vectors(index.ids)
    found["dense"] = kept.dense.tolist()
    found["sparse"] = kept.sparse.toarray().tolist()
    found["colbert"] = [part.tolist() for part in kept.colbert]
    return found


CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["upsert", "upsert", "delete"]),
        st.lists(st.integers(0, 30), min_size=1, max_size=9, unique=True),
    ),
    min_size=1,
    max_size=12,
)


@pytest.mark.slow
@pytest.mark.parametrize("colbert", ["disk", "memory"])
@settings(max_examples=6)
@given(changes=CHANGES)
def test_whatever_changes_every_answer_has_the_bits_of_a_local_index(
    tmp_path_factory, colbert, changes
):
    path = tmp_path_factory.mktemp("durable") / "my.index"
    local = LocalIndex(weighting=BM25())
    with (
        pytest.MonkeyPatch.context() as patch,
        made(path, colbert=colbert) as index,
        opened(path, colbert=colbert) as other,
    ):
        patch.setattr(table, "_DEAD_ROWS_KEPT", 10)  # so that compaction comes up
        for seed, (change, numbers) in enumerate(changes):
            ids = [str(number) for number in numbers]
            if change == "upsert":
                put(index, ids, seed=seed)
                put(local, ids, seed=seed)
            else:
                assert index.delete(ids) == local.delete(ids)
            if seed % 3 == 0:
                assert answers(other) == answers(local)
        assert answers(index) == answers(local)
        assert answers(other) == answers(local)
        with opened(path, colbert=colbert) as again:
            assert answers(again) == answers(local)


def test_documents_that_come_one_by_one_are_joined_and_stay_as_they_are(tmp_path):
    local = LocalIndex(weighting=BM25())
    with made(tmp_path / "my.index") as index:
        for number in range(70):
            put(index, [str(number)], seed=number)
            put(local, [str(number)], seed=number)
        batches = index._db.execute("SELECT count(*) FROM batch")[0][0]
        assert batches < 10
        assert answers(index) == answers(local)
    with opened(tmp_path / "my.index") as again:
        assert answers(again) == answers(local)


def test_deleting_most_of_it_gives_the_space_back(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "_DEAD_ROWS_KEPT", 10)
    path = tmp_path / "my.index"
    with made(path) as index:
        put(index, [str(number) for number in range(600)])
        index._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        before = path.stat().st_size
        index.delete([str(number) for number in range(20, 600)])
        index._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert path.stat().st_size < before / 2
        assert len(index) == 20


def test_a_compaction_that_fails_does_not_undo_the_change_before_it(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "_DEAD_ROWS_KEPT", 10)
    with made(tmp_path / "my.index") as index:
        put(index, [str(number) for number in range(60)])

        def full(*_, **__):
            raise SavedIndexError("the disk is full")

        with monkeypatch.context() as patch:
            patch.setattr("m3_retrievers.index.durable.writing.rewrite", full)
            index.delete([str(number) for number in range(50)])
        assert index.ids == tuple(str(number) for number in range(50, 60))
        index.delete(["50"])  # which tries again
        assert index._memory.at.rows == 9


def test_nothing_is_stored_where_the_input_is_refused(tmp_path):
    with made(tmp_path / "my.index") as index:
        put(index, ["a", "b"])
        before = answers(index)
        with pytest.raises(DuplicateIdError, match="'a'"):
            index.add(records(["c", "a"]), representations(2))
        with pytest.raises(DuplicateIdError, match="twice"):
            index.upsert(records(["c", "c"]), representations(2))
        with pytest.raises(InputError, match="width"):
            index.add(records(["c"]), representations(1, width=5))
        with pytest.raises(InputError, match="a row of representations"):
            index.add(records(["c"]), representations(2))
        assert answers(index) == before
        with opened(tmp_path / "my.index") as again:
            assert answers(again) == before


def test_a_change_that_fails_half_way_leaves_no_trace(tmp_path, monkeypatch):
    with made(tmp_path / "my.index") as index:
        put(index, ["a", "b"])
        before = answers(index)

        def torn(*_, **__):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr("m3_retrievers.index.durable.writing._put_batch", torn)
            with pytest.raises(KeyboardInterrupt):
                put(index, ["c", "a"], seed=5)
        assert answers(index) == before
        put(index, ["c"], seed=5)
        assert index.ids == ("a", "b", "c")


def test_a_change_that_memory_did_not_follow_is_there_all_the_same(tmp_path, monkeypatch):
    with made(tmp_path / "my.index") as index:
        put(index, ["a", "b"])

        def interrupted(*_, **__):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(table.Table, "extend", interrupted)
            with pytest.raises(KeyboardInterrupt):
                put(index, ["c"], seed=5)
        assert index.ids == ("a", "b", "c")


def test_recompute_keeps_no_token_vectors(tmp_path):
    with DurableIndex(tmp_path / "my.index", colbert="recompute") as index:
        put(index, ["a", "b"])
        assert index.modes == {"dense", "sparse"}
        assert index._db.execute("SELECT count(*) FROM colbert") == [(0,)]
    with pytest.raises(InputError, match="does not keep ColBERT"):
        DurableIndex(tmp_path / "my.index", colbert="disk")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modes": ["dense"]}, "modes"),
        ({"colbert_dtype": "float32"}, "colbert_dtype"),
        ({"colbert": "recompute"}, "keeps ColBERT"),
        ({"weighting": BM25(k1=9.0)}, "weighting"),
    ],
)
def test_an_option_that_the_file_was_not_made_with_is_refused(tmp_path, options, message):
    made(tmp_path / "my.index").close()
    with pytest.raises(InputError, match=message):
        opened(tmp_path / "my.index", **options)


@pytest.mark.parametrize(
    "options", [{"modes": "dense"}, {"colbert": "ssd"}, {"colbert_dtype": "int3"}, {"timeout": -1}]
)
def test_options_that_make_no_sense_make_no_file(tmp_path, options):
    with pytest.raises(InputError, match="expects"):
        made(tmp_path / "my.index", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_bm25_leg_needs_what_makes_it_again(tmp_path):
    made(tmp_path / "my.index").close()
    with pytest.raises(SavedIndexError, match=r"restore=BM25\.from_state"):
        DurableIndex(tmp_path / "my.index")


def test_another_model_is_refused_and_extra_is_kept(tmp_path):
    with made(tmp_path / "my.index") as index:
        assert index.bind({"name": "m", "fingerprint": "1"}) == {}
        assert index.bind({"name": "m", "fingerprint": "1"}, extra={"k": 3}) == {"k": 3}
    with opened(tmp_path / "my.index") as index:
        assert index.bind({"name": "m", "fingerprint": "1"}) == {"k": 3}
        with pytest.raises(IndexModelError, match="fingerprint"):
            index.bind({"name": "m", "fingerprint": "2"})


def test_a_closed_index_says_so_at_every_call(tmp_path):
    index = made(tmp_path / "my.index")
    put(index, ["a"])
    index.close()
    calls = [
        lambda: len(index),
        lambda: index.get(["a"]),
        lambda: index.search(QUERY, PLAN, k=1),
        lambda: put(index, ["b"]),
        lambda: index.delete(["a"]),
        lambda: index.bind({}),
    ]
    for call in calls:
        with pytest.raises(IndexUnavailableError, match="closed"):
            call()
    index.close()
    assert "my.index" in repr(index)


def test_copies_and_pickles_are_refused(tmp_path):
    with made(tmp_path / "my.index") as index:
        for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(InputError, match="by its path"):
                attempt(index)


def test_a_second_writer_waits_no_longer_than_its_time_out(tmp_path):
    path = tmp_path / "my.index"
    with made(path) as index, opened(path, timeout=0.05) as other:
        put(index, ["a"])
        with index._lock, index._db.writing():
            assert other.ids == ("a",)  # a reader does not wait
            with pytest.raises(IndexLockedError, match=r"0\.05 seconds"):
                put(other, ["b"])
        put(other, ["b"])
        assert index.ids == ("a", "b")


def test_a_search_sees_one_state_whatever_others_do_meanwhile(tmp_path):
    path = tmp_path / "my.index"
    with made(path) as index, opened(path) as other:
        put(index, [str(number) for number in range(9)])
        before = answers(other)
        with other.snapshot():
            index.delete([str(number) for number in range(8)])
            put(index, ["8", "new"], seed=3)
            assert answers(other) == before
        assert other.ids == ("8", "new")


def test_a_change_inside_a_snapshot_of_the_same_thread_is_made(tmp_path):
    with made(tmp_path / "my.index") as index, index.snapshot():
        put(index, ["a"])
        assert index.ids == ("a",)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on Windows")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_reads_and_writes_as_its_parent_does(tmp_path):
    path = tmp_path / "my.index"
    with made(path) as index:
        put(index, ["a"])
        child = os.fork()
        if child == 0:
            put(index, ["b"], seed=1)
            os._exit(0 if index.ids == ("a", "b") else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert index.ids == ("a", "b")
        put(index, ["c"])
        assert opened(path).ids == ("a", "b", "c")


# Files that are none of ours


def test_a_file_of_another_kind_is_left_as_it_is(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("mine, and longer than a header of sixteen bytes")
    with pytest.raises(SavedIndexError, match="no durable index"):
        made(path)
    assert path.read_text().startswith("mine")


def test_a_database_of_another_application_is_left_as_it_is(tmp_path):
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE mine (x)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(SavedIndexError, match="another application"):
        made(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(SavedIndexError, match="folder"):
        made(tmp_path)


def test_a_link_where_the_log_would_be_is_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "my.index-wal").symlink_to(victim)
    with pytest.raises(SavedIndexError, match="symbolic link"):
        made(tmp_path / "my.index")
    assert victim.read_text() == "mine"


def test_a_newer_version_says_so(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("m3_retrievers.index.durable.file.VERSION", 2)
        made(tmp_path / "my.index").close()
    with pytest.raises(SavedIndexError, match="version 2"):
        opened(tmp_path / "my.index")


def test_a_file_torn_at_creation_is_made_again(tmp_path):
    path = tmp_path / "my.index"
    path.touch()
    with made(path) as index:
        put(index, ["a"])
    assert opened(path).ids == ("a",)


def test_a_truncated_file_is_refused(tmp_path):
    path = tmp_path / "my.index"
    with made(path) as index:
        put(index, [str(number) for number in range(50)])
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(IndexCorruptError, match=r"my\.index"):
        opened(path)


def test_scores_of_vectors_on_disk_are_those_of_vectors_in_memory(tmp_path):
    with made(tmp_path / "my.index") as index:
        put(index, [str(number) for number in range(30)])
        ids = [str(number) for number in (7, 3, 21)]
        with opened(tmp_path / "my.index", colbert="memory") as other:
            on_disk, in_memory = index.vectors(ids).colbert, other.vectors(ids).colbert
            np.testing.assert_array_equal(on_disk.vectors, in_memory.vectors)
            np.testing.assert_array_equal(
                index.score(QUERY, "colbert", ids), other.score(QUERY, "colbert", ids)
            )
