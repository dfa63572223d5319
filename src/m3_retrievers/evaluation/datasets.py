"""Test collections on disk, in the layouts of the benchmarks M3 was measured on.

=========  =====================================================================================
BEIR       corpus.jsonl {_id, title, text}, queries.jsonl {_id, text}, qrels/SPLIT.tsv
           (header, then query-id, corpus-id, score)
MIRACL     topics/*SPLIT.tsv (id, query), qrels/*SPLIT.tsv (TREC: id, 0, document, grade), and
           the passages as *.jsonl {docid, title, text}, anywhere below
MLDR       corpus.jsonl {docid, text}, SPLIT.jsonl {query_id, query, positive_passages:
           [{docid}]}
MKQA       corpus.jsonl {docid or _id, title, text}, SPLIT.jsonl {id, question, answers: [str]};
           a passage is relevant where it holds an answer, letters and digits alone compared.
           The paper's Recall@100 is Success@100: is there an answer among the first 100?
=========  =====================================================================================

Every .jsonl may be a .jsonl.gz. The hub itself is never asked: bring the files.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from m3_retrievers.errors import DatasetError

Qrels = dict[str, dict[str, int]]


@dataclass(frozen=True, slots=True, eq=False)
class Collection:
    """Documents, queries and judgements of one split.

    documents, queries: texts by id, in file order. qrels: grades by query and document;
    only judged queries are kept. Raises DatasetError where they contradict each other.
    """

    name: str
    split: str
    documents: Mapping[str, str]
    queries: Mapping[str, str]
    qrels: Mapping[str, Mapping[str, int]]

    def __post_init__(self) -> None:
        if not self.documents or not self.queries:
            raise DatasetError(
                f"{self.name} expects documents and judged queries, got {len(self.documents)} and "
                f"{len(self.queries)} in the split {self.split!r}."
            )
        unjudged = set(self.queries) - set(self.qrels)
        unknown = {d for q in self.queries for d in self.qrels.get(q, ())} - set(self.documents)
        if unjudged or unknown:
            what = (
                f"queries without judgements {_some(unjudged)}"
                if unjudged
                else (f"judged documents that are not in the corpus {_some(unknown)}")
            )
            raise DatasetError(f"{self.name} has {what}. Use files of one version.")

    def halves(self, *, seed: int = 0) -> tuple[Collection, Collection]:
        """Return two collections of the same documents that share no query."""
        ids = list(self.queries)
        order = np.random.default_rng(seed).permutation(len(ids))
        cut = len(ids) // 2
        first = self._part("half 1", [ids[at] for at in sorted(order[:cut])])
        second = self._part("half 2", [ids[at] for at in sorted(order[cut:])])
        return first, second

    def _part(self, label: str, ids: list[str]) -> Collection:
        return Collection(
            f"{self.name}, {label}",
            self.split,
            self.documents,
            {id: self.queries[id] for id in ids},
            {id: self.qrels[id] for id in ids},
        )


def read_collection(
    path: str | os.PathLike[str], *, split: str = "test", name: str | None = None
) -> Collection:
    """Return the collection of a folder; its layout is seen from its files.

    A document's text is its title, a space and its text. Raises DatasetError, naming the
    file and line, where something is missing or malformed.
    """
    folder = Path(path)
    name = name or folder.resolve().name
    if (folder / "qrels").is_dir() and (folder / "topics").is_dir():
        return _miracl(folder, split, name)
    if (folder / "qrels").is_dir():
        return _beir(folder, split, name)
    if _plain_or_packed(folder / f"{split}.jsonl").is_file():
        return _lines(folder, split, name)
    raise DatasetError(
        f"{folder} is expected to be a test collection with qrels/{split}.tsv (BEIR, MIRACL) or "
        f"{split}.jsonl (MLDR, MKQA), and has neither. Check the folder and the split."
    )


def _beir(folder: Path, split: str, name: str) -> Collection:
    qrels: Qrels = defaultdict(dict)
    path = folder / "qrels" / f"{split}.tsv"
    for place, row in _table(path, header=True):
        _columns(row, 3, place)
        qrels[row[0]][row[1]] = _grade(row[2], place)
    queries = {
        _text(one, "_id", place): _text(one, "text", place)
        for place, one in _json_lines(_there(folder / "queries.jsonl"))
    }
    return _collection(name, split, _documents([folder / "corpus.jsonl"]), queries, qrels)


def _miracl(folder: Path, split: str, name: str) -> Collection:
    qrels: Qrels = defaultdict(dict)
    for place, row in _table(_one(folder / "qrels", split), header=False):
        _columns(row, 4, place)
        qrels[row[0]][row[2]] = _grade(row[3], place)
    queries = {}
    for place, row in _table(_one(folder / "topics", split), header=False):
        _columns(row, 2, place)
        queries[row[0]] = row[1]
    files = sorted([*folder.rglob("*.jsonl"), *folder.rglob("*.jsonl.gz")])
    return _collection(name, split, _documents(files), queries, qrels)


def _lines(folder: Path, split: str, name: str) -> Collection:
    documents = _documents([folder / "corpus.jsonl"])
    lines = list(_json_lines(_there(folder / f"{split}.jsonl")))
    if lines and "answers" in lines[0][1]:
        return _mkqa(name, split, documents, lines)
    queries, qrels = {}, {}
    for place, one in lines:
        id = _text(one, "query_id", place)
        queries[id] = _text(one, "query", place)
        passages = one.get("positive_passages")
        if not isinstance(passages, list):
            raise DatasetError(
                f"{place} expects 'positive_passages' to be a list, got {passages!r:.60}."
            )
        qrels[id] = {_text(passage, "docid", place): 1 for passage in passages}
    return _collection(name, split, documents, queries, qrels)


def _mkqa(
    name: str, split: str, documents: Mapping[str, str], lines: list[tuple[str, dict[str, Any]]]
) -> Collection:
    holds = _Holder(documents)
    queries, qrels = {}, {}
    for place, one in lines:
        id, answers = _text(one, "id", place), one["answers"]
        if not isinstance(answers, list) or not all(isinstance(a, str) for a in answers):
            raise DatasetError(
                f"{place} expects 'answers' to be a list of strings, got {answers!r:.60}."
            )
        queries[id] = _text(one, "question", place)
        qrels[id] = {document: 1 for answer in answers for document in holds(answer)}
    return _collection(name, split, documents, queries, qrels)


class _Holder:
    """Finds the documents that hold an answer, as words in a row."""

    def __init__(self, documents: Mapping[str, str]) -> None:
        self._words = {id: f" {_plain(text)} " for id, text in documents.items()}
        self._having: dict[str, list[str]] = defaultdict(list)
        for id, text in self._words.items():
            for word in set(text.split()):
                self._having[word].append(id)

    def __call__(self, answer: str) -> list[str]:
        words = _plain(answer).split()
        if not words:
            return []
        rarest = min((self._having.get(word, []) for word in words), key=len)
        phrase = f" {' '.join(words)} "
        return [id for id in rarest if phrase in self._words[id]]


def _plain(text: str) -> str:
    # one form for a letter with its accent, which corpora write as one character or as two
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFC", text.lower())))


def _collection(
    name: str, split: str, documents: Mapping[str, str], queries: Mapping[str, str], qrels: Qrels
) -> Collection:
    judged = {id: text for id, text in queries.items() if id in qrels}
    missing = set(qrels) - set(queries)
    if missing:
        raise DatasetError(f"{name} judges queries that have no text {_some(missing)}.")
    return Collection(name, split, documents, judged, qrels)


def _documents(files: list[Path]) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in files:
        for place, one in _json_lines(_there(path)):
            id = _text(one, "docid" if "docid" in one else "_id", place)
            if id in found:
                raise DatasetError(f"{place} expects each document id once, got {id!r} again.")
            found[id] = f"{one.get('title') or ''} {_text(one, 'text', place)}".strip()
    return found


def _json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with _open(path) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                content = json.loads(line)
            except json.JSONDecodeError as error:
                raise DatasetError(f"{path}:{number} is expected to hold JSON: {error}.") from error
            if not isinstance(content, dict):
                raise DatasetError(
                    f"{path}:{number} expects a JSON object, got {line.strip():.60}."
                )
            yield f"{path}:{number}", content


def _table(path: Path, *, header: bool) -> Iterator[tuple[str, list[str]]]:
    with _open(_there(path)) as lines:
        rows = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        for number, row in enumerate(rows, 1):
            if row and not (header and number == 1):
                # MIRACL's qrels are TREC's, which some copies part by spaces
                yield f"{path}:{number}", row if len(row) > 1 else row[0].split()


def _open(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8")
    return path.open(encoding="utf-8")


def _one(folder: Path, split: str) -> Path:
    found = sorted(path for path in folder.iterdir() if path.name.endswith(f"{split}.tsv"))
    if len(found) != 1:
        names = [path.name for path in sorted(folder.iterdir())]
        raise DatasetError(
            f"{folder} expects one file that ends in {split}.tsv, got {names}. Keep one language."
        )
    return found[0]


def _plain_or_packed(path: Path) -> Path:
    """Return the path, or that of its .gz where only that is there."""
    packed = path.with_name(f"{path.name}.gz")
    return packed if packed.is_file() and not path.is_file() else path


def _there(path: Path) -> Path:
    path = _plain_or_packed(path)
    if not path.is_file():
        others = (
            sorted(other.name for other in path.parent.glob("*")) if path.parent.is_dir() else []
        )
        raise DatasetError(f"{path} is expected and is not there; beside it are {others[:10]}.")
    return path


def _text(content: Mapping[str, Any], key: str, place: str) -> str:
    value = content.get(key) if isinstance(content, Mapping) else None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise DatasetError(f"{place} expects a string under {key!r}, got {value!r:.60}.")
    return value


def _columns(row: list[str], count: int, place: str) -> None:
    if len(row) != count:
        raise DatasetError(f"{place} expects {count} columns parted by tabs, got {len(row)}.")


def _grade(value: str, place: str) -> int:
    try:
        return int(float(value))
    except ValueError:
        raise DatasetError(f"{place} expects a grade, got {value!r}.") from None


def _some(ids: set[str]) -> str:
    return f"({len(ids)}: {', '.join(sorted(ids)[:3])}{' …' if len(ids) > 3 else ''})"
