"""Runs and judgements as TREC files: every id comes back, and other tools read the columns."""

from dataclasses import replace

import ir_measures
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3_retrievers.errors import DatasetError
from m3_retrievers.evaluation import (
    Collection,
    evaluate,
    read_qrels,
    read_run,
    write_qrels,
    write_run,
)
from m3_retrievers.evaluation.metrics import measure
from m3_retrievers.evaluation.trec import from_column, to_column

IDS = [
    "",
    " ",
    "my notes/a b.md:3",
    "tab\tand\nnewline\r\n",
    "no\u00a0break\u2028line\x85next\x1cfile",
    "图书 第一页",
    "\ud800",
    "nul\x00",
    "utf-8''",
    "utf-8''a%20b",
]
PLAIN = ["d1", "图书", "الصفحة", "50%20off", "https://x.org/a%20b", "d#1", "e\u0301", "👩‍💻", "0"]


@pytest.mark.parametrize("id", IDS)
def test_an_id_that_a_column_cannot_hold_is_one_ascii_column(id):
    assert len(to_column(id).split()) == 1
    assert to_column(id).isascii()
    assert from_column(to_column(id)) == id


@pytest.mark.parametrize("id", PLAIN)
def test_every_other_id_stands_as_it_is(id):
    assert to_column(id) == id == from_column(id)


@given(st.text())
def test_any_id_comes_back(id):
    column = to_column(id)
    assert from_column(column) == id
    assert column.split() == column.splitlines() == [column]
    column.encode()


def test_a_run_comes_back_in_its_order(tmp_path):
    ids = [*IDS, *PLAIN]
    run = {query: (ids, [1.0] * len(ids)) for query in ids}
    write_run(tmp_path / "a.trec", run, tag="my run")
    back = read_run(tmp_path / "a.trec")
    assert {query: found for query, (found, _) in back.items()} == dict.fromkeys(ids, ids)
    assert all(len(line.split()) == 6 for line in (tmp_path / "a.trec").read_text().splitlines())


def test_judgements_come_back(tmp_path):
    qrels = {query: {id: grade for grade, id in enumerate([*IDS, *PLAIN])} for query in IDS}
    write_qrels(tmp_path / "qrels", qrels)
    assert read_qrels(tmp_path / "qrels") == qrels


def test_a_saved_evaluation_with_odd_ids_is_read_by_other_tools(encoder, tmp_path):
    texts = [f"page {n}" for n in range(len(IDS))]
    queries = dict(zip(reversed(IDS), texts, strict=True))
    qrels = {query: {IDS[n]: 1} for n, query in enumerate(queries)}
    documents = dict(zip(IDS, texts, strict=True))
    collection = Collection("odd", "test", documents, queries, qrels)
    found = evaluate(encoder, collection, modes=["dense"])
    found.save(tmp_path)
    run = read_run(tmp_path / "dense.trec")
    assert {query: ids for query, (ids, _) in run.items()} == {
        query: ids for query, (ids, _) in found.runs["dense"].items()
    }
    write_qrels(tmp_path / "qrels", qrels)
    theirs = ir_measures.calc_aggregate(
        [ir_measures.nDCG @ 10],
        ir_measures.read_trec_qrels(str(tmp_path / "qrels")),
        ir_measures.read_trec_run(str(tmp_path / "dense.trec")),
    )
    assert theirs[ir_measures.nDCG @ 10] == pytest.approx(found.mean("dense"), abs=1e-9)
    assert type(found).load(tmp_path).query_ids == tuple(queries)
    empty = replace(found, runs={"dense": {"q": ([], [])}})
    empty.save(tmp_path / "empty")
    assert read_run(tmp_path / "empty" / "dense.trec") == {}


def test_a_run_of_another_tool_is_read_by_its_scores(tmp_path):
    (tmp_path / "run").write_text("q Q0 b 1 0.5 x\nq Q0 a 2 2e0 x\nq\tQ0 c 3 0.5 x\n")
    assert read_run(tmp_path / "run") == {"q": (["a", "b", "c"], [2.0, 0.5, 0.5])}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("q Q0 a b 1 0.5 x", "run:2 expects 6 columns parted by white space, got 7"),
        ("q Q0 a 1 high x", "run:2 expects a score, got 'high'"),
        ("q Q0 d 1 0.5 x", "run:2 expects each document once a query, got 'd' again"),
    ],
)
def test_a_broken_line_is_named(tmp_path, line, message):
    (tmp_path / "run").write_text(f"q Q0 d 1 0.5 x\n{line}\n")
    with pytest.raises(DatasetError, match=message):
        read_run(tmp_path / "run")


def test_what_is_no_trec_file_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="expected to be a TREC file"):
        read_run(tmp_path / "none")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    with pytest.raises(DatasetError, match="expected to be a TREC file"):
        read_qrels(tmp_path / "bytes")
    (tmp_path / "qrels").write_text("q 0 d good\n")
    with pytest.raises(DatasetError, match="qrels:1 expects a whole grade, got 'good'"):
        read_qrels(tmp_path / "qrels")


def test_ids_that_no_c_string_holds_are_measured():
    # the C library behind ir-measures ends an id at NUL, and crashed on a lone surrogate
    for id in ("\ud800", "a\x00"):
        run = {id: ([id, "a"], [2.0, 1.0])}
        values = measure(run, {id: {id: 1, "a": 0}}, ["RR@10", "nDCG@10"])
        assert [found.tolist() for found in values.values()] == [[1.0], [1.0]]
