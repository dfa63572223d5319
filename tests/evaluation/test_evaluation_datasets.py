"""Each layout read, and each way it can be wrong."""

import gzip
import json
from pathlib import Path

import pytest

from m3_retrievers.errors import DatasetError
from m3_retrievers.evaluation import Collection, read_collection

DOCUMENTS = {"d1": "Rivers rivers run to the sea", "d2": "The moon is old", "d3": "Bread"}


def lines(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)


@pytest.fixture
def beir(tmp_path: Path) -> Path:
    titled = {"_id": "d1", "title": "Rivers", "text": "rivers run to the sea"}
    rest = [{"_id": id, "text": DOCUMENTS[id]} for id in ("d2", "d3")]
    lines(tmp_path / "corpus.jsonl", [titled, *rest])
    asked = {"q1": "where do rivers run", "q2": "how old is the moon", "q3": "not judged"}
    lines(tmp_path / "queries.jsonl", [{"_id": id, "text": text} for id, text in asked.items()])
    (tmp_path / "qrels").mkdir()
    judged = "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\nq2\td2\t1\n"
    (tmp_path / "qrels" / "test.tsv").write_text(judged)
    return tmp_path


def test_beir(beir):
    found = read_collection(beir)
    assert found.name == beir.name
    assert dict(found.documents) == DOCUMENTS
    assert dict(found.queries) == {"q1": "where do rivers run", "q2": "how old is the moon"}
    assert found.qrels == {"q1": {"d1": 2, "d2": 0}, "q2": {"d2": 1}}


def test_miracl(tmp_path):
    (tmp_path / "topics").mkdir()
    (tmp_path / "topics" / "topics.miracl-v1.0-de-dev.tsv").write_text("1\twohin\n2\twie alt\n")
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "qrels.miracl-v1.0-de-dev.tsv").write_text("1\tQ0\td1\t1\n2 Q0 d2 1\n")
    rows = [{"docid": id, "title": "", "text": text} for id, text in DOCUMENTS.items()]
    lines(tmp_path / "corpus" / "docs-0.jsonl.gz", rows[:2])
    lines(tmp_path / "corpus" / "docs-1.jsonl", rows[2:])
    found = read_collection(tmp_path, split="dev", name="miracl-de")
    assert dict(found.queries) == {"1": "wohin", "2": "wie alt"}
    assert set(found.documents) == set(DOCUMENTS)
    assert found.qrels == {"1": {"d1": 1}, "2": {"d2": 1}}


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz"])
def test_mldr(tmp_path, ending):
    rows = [{"docid": id, "text": text} for id, text in DOCUMENTS.items()]
    lines(tmp_path / f"corpus.{ending}", rows)
    one = {"query_id": "q", "query": "moon", "positive_passages": [{"docid": "d2", "text": "x"}]}
    lines(tmp_path / f"test.{ending}", [{**one, "negative_passages": []}])
    found = read_collection(tmp_path)
    assert (dict(found.queries), found.qrels) == ({"q": "moon"}, {"q": {"d2": 1}})


def test_mkqa_judges_by_the_answers_words(tmp_path):
    documents = {"a": "It was in New York, in 1900.", "b": "A new yorker.", "c": "york new"}
    lines(tmp_path / "corpus.jsonl", [{"docid": i, "text": t} for i, t in documents.items()])
    lines(tmp_path / "test.jsonl", [{"id": 7, "question": "where", "answers": ["new york", "?"]}])
    found = read_collection(tmp_path)
    assert (dict(found.queries), found.qrels) == ({"7": "where"}, {"7": {"a": 1}})


def test_mkqa_takes_a_beir_corpus_and_either_form_of_an_accent(tmp_path):
    lines(tmp_path / "corpus.jsonl", [{"_id": "a", "title": "", "text": "le cafe\u0301 noir"}])
    lines(tmp_path / "test.jsonl", [{"id": "q", "question": "?", "answers": ["Caf\u00e9"]}])
    assert read_collection(tmp_path).qrels == {"q": {"a": 1}}


def test_halves_share_no_query_and_lose_none(beir):
    whole = read_collection(beir)
    one, other = whole.halves(seed=3)
    assert {*one.queries} | {*other.queries} == {*whole.queries}
    assert not {*one.queries} & {*other.queries}
    assert [*one.qrels] == [*one.queries]


def test_halves_keep_the_order_of_the_queries():
    ids = [f"q{n}" for n in range(20)]
    texts = {id: id for id in ids}
    for half in Collection("c", "test", {"d": "x"}, texts, {id: {"d": 1} for id in ids}).halves():
        assert [*half.qrels] == [*half.queries] == [id for id in ids if id in half.queries]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("corpus.jsonl", "{", r"corpus\.jsonl:1 is expected to hold JSON"),
        ("corpus.jsonl", "[]", r"corpus\.jsonl:1 expects a JSON object"),
        ("corpus.jsonl", '{"_id": "d1"}', r"corpus\.jsonl:1 expects a string under 'text'"),
        ("corpus.jsonl", '{"_id": "d1", "text": ""}\n' * 2, "each document id once, got 'd1'"),
        ("corpus.jsonl", '{"_id": "d1", "text": ""}', "judged documents that are not in"),
        ("queries.jsonl", '{"_id": "q1", "text": "x"}', "judges queries that have no text"),
        ("qrels/test.tsv", "h\nq1\td1\n", r"test\.tsv:2 expects 3 columns"),
        ("qrels/test.tsv", "h\nq1\td1\tgood\n", r"test\.tsv:2 expects a grade, got 'good'"),
        ("qrels/test.tsv", "h\n", "expects documents and judged queries"),
    ],
)
def test_a_broken_file_is_named_with_its_line(beir, file, content, message):
    (beir / file).write_text(content)
    with pytest.raises(DatasetError, match=message):
        read_collection(beir)


def test_what_is_missing_is_named(beir, tmp_path_factory):
    with pytest.raises(DatasetError, match=r"dev\.tsv is expected.*test\.tsv"):
        read_collection(beir, split="dev")
    with pytest.raises(DatasetError, match="expected to be a test collection"):
        read_collection(tmp_path_factory.mktemp("empty"))


def test_a_query_without_judgements_is_refused():
    with pytest.raises(DatasetError, match="queries without judgements"):
        Collection("c", "test", {"d": "x"}, {"q": "y"}, {})
