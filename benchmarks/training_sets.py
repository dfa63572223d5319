"""Training lines and validation collections for m3-mini, cut from training splits only.

From a folder of BEIR-format collections with ``train_pairs/ids/SET.jsonl`` (qid, pos, neg: ids)
and ``train_pairs/flag_format/SET.jsonl`` (texts), one seeded cut a set::

    python benchmarks/training_sets.py --data DATA --out FOLDER

    FOLDER/train/SET.jsonl        lines that ``m3-retrievers train`` reads
    FOLDER/valid/SET/             corpus.jsonl, queries.jsonl, qrels/test.tsv
    FOLDER/long/train, long/valid the same for the sets of whole stories and meetings

Queries that share a positive passage stay on one side of the cut. A query that is held out in
one set is trained on in none.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m3_retrievers.training import Example, write_examples

# queries held out for validation
SETS = {
    "squad_en": 300,
    "fairytaleqa_sections_en": 300,
    "cosqa": 100,
    "selqa_en": 300,
    "scitldr_en": 300,
    "s2search_en": 0,
}
LONG_SETS = {"fairytaleqa_long_en": 300, "qmsum_long_en": 100}
# of seven: all of them written out would be 1.4 GB
LONG_NEGATIVES = 2


@dataclass(frozen=True, slots=True)
class Pair:
    """A query with the ids of its positives and negatives."""

    query_id: str
    query: str
    positives: tuple[str, ...]
    negatives: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """Pairs, the text of each passage, and the collection's own corpus file, if it has one."""

    pairs: Sequence[Pair]
    texts: Mapping[str, str]
    corpus: Path | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    cut = {**SETS, **LONG_SETS}
    sets = {name: read_set(options.data, name) for name in cut}
    held = {name: held_out(one.pairs, cut[name], seed=options.seed) for name, one in sets.items()}
    questions = {pair.query for pairs in held.values() for pair in pairs}
    for name, one in sets.items():
        left = [pair for pair in one.pairs if pair.query not in questions]
        out = options.out / "long" if name in LONG_SETS else options.out
        most = LONG_NEGATIVES if name in LONG_SETS else None
        examples = list(training_lines(left, one.texts, source=name, most=most))
        (out / "train").mkdir(parents=True, exist_ok=True)
        write_examples(out / "train" / f"{name}.jsonl", examples)
        valid = [pair for pair in one.pairs if pair in held[name]]
        if valid:
            write_collection(out / "valid" / name, one, valid)
        negatives = sum(len(example.negatives) for example in examples) / len(examples)
        print(
            f"{name}: {len(one.pairs)} pairs, {len(examples)} to train on with {negatives:.2f} "
            f"negatives ({sum(not e.negatives for e in examples)} without), {len(valid)} held out"
        )


def read_set(data: Path, name: str) -> TrainingSet:
    """Return a set by its ids if there are any, else by its ready lines.

    Passages of ready lines are numbered in order of appearance, equal texts alike.
    """
    ids = data / "train_pairs" / "ids" / f"{name}.jsonl"
    if ids.is_file():
        corpus = data / name / "corpus.jsonl"
        texts = {d["_id"]: f"{d.get('title', '')} {d['text']}".strip() for d in read_lines(corpus)}
        asked = {q["_id"]: q["text"] for q in read_lines(data / name / "queries.jsonl")}
        pairs = [
            Pair(one["qid"], asked[one["qid"]], tuple(one["pos"]), tuple(one["neg"]))
            for one in read_lines(ids)
        ]
        return TrainingSet(pairs, texts, corpus)
    number: dict[str, str] = {}

    def numbered(passages: Iterable[str]) -> tuple[str, ...]:
        # "title\ntext" here, "title text" in the collections
        clean = (passage.replace("\n", " ", 1).strip() for passage in passages)
        return tuple(number.setdefault(text, f"p{len(number)}") for text in clean)

    lines = read_lines(data / "train_pairs" / "flag_format" / f"{name}.jsonl")
    pairs = [
        Pair(f"q{row}", one["query"].strip(), numbered(one["pos"]), numbered(one["neg"]))
        for row, one in enumerate(lines)
    ]
    return TrainingSet(pairs, {id: text for text, id in number.items()})


def held_out(pairs: Sequence[Pair], count: int, *, seed: int) -> set[Pair]:
    """Return about ``count`` pairs, whole groups that share positives with no other pair."""
    groups = grouped(pairs)
    random.Random(seed).shuffle(groups)
    found: set[Pair] = set()
    for group in groups:
        # a group that does not fit makes room for smaller ones behind it
        if len(found) + len(group) <= count:
            found.update(group)
    return found


def grouped(pairs: Sequence[Pair]) -> list[list[Pair]]:
    """Return the pairs in groups, connected through shared positives, in order of appearance."""
    above: dict[str, str] = {}

    def top(id: str) -> str:
        while above.setdefault(id, id) != id:
            id = above[id]
        return id

    for pair in pairs:
        for id in pair.positives[1:]:
            above[top(id)] = top(pair.positives[0])
    groups: defaultdict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        groups[top(pair.positives[0])].append(pair)
    return list(groups.values())


def training_lines(
    pairs: Iterable[Pair], texts: Mapping[str, str], *, source: str, most: int | None
) -> Iterator[Example]:
    """Yield an example a pair; an empty negative, or one that equals a positive, is left out.

    most: keep the first so many negatives, None for all.
    """
    for pair in pairs:
        positives = tuple(dict.fromkeys(texts[id] for id in pair.positives))
        known = {"", *positives}
        negatives = dict.fromkeys(texts[id] for id in pair.negatives if texts[id] not in known)
        yield Example(pair.query, positives, tuple(negatives)[:most], source=source)


def write_collection(folder: Path, one: TrainingSet, valid: Sequence[Pair]) -> None:
    """Write a BEIR-format folder: the collection's own corpus, or all passages of the set."""
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    if one.corpus is not None:
        shutil.copyfile(one.corpus, folder / "corpus.jsonl")
    else:
        documents = ({"_id": id, "title": "", "text": text} for id, text in one.texts.items())
        write_lines(folder / "corpus.jsonl", (d for d in documents if d["text"]))
    queries = ({"_id": pair.query_id, "text": pair.query} for pair in valid)
    write_lines(folder / "queries.jsonl", queries)
    judged = [f"{pair.query_id}\t{id}\t1" for pair in valid for id in dict.fromkeys(pair.positives)]
    lines = ["query-id\tcorpus-id\tscore", *judged]
    (folder / "qrels" / "test.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_lines(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def write_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


if __name__ == "__main__":
    main()
