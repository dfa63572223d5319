"""Training lines made from texts alone, for queries that no question set has.

Question sets teach short questions. Searches over titles and abstracts are wordier, so two
sources of such pairs stand beside them (the cropping of Contriever, arXiv 2112.09118)::

    python benchmarks/text_pairs.py --train FOLDER/train --valid FOLDER/valid

- crops: one or two sentences of a training passage ask, the passage without them answers.
  Only positives of training queries are cut up.
- docstrings: a first sentence asks, the rest answers: the standard library's and torch's to
  train on, scipy's and numpy's to validate on (queries and texts of a kind nothing here trains).
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import pkgutil
import random
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from training_sets import Pair, TrainingSet, write_collection

from m3_retrievers.corpora.standard_library import standard_library
from m3_retrievers.training import Example, read_examples, write_examples

CROPPED = ("scitldr_en", "squad_en")
VALID_DOCSTRINGS = 300
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'(])")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--valid", type=Path, required=True)
    options = parser.parse_args()
    rng = random.Random(0)
    for name in CROPPED:
        examples = read_examples(options.train / f"{name}.jsonl")
        passages = list(dict.fromkeys(text for one in examples for text in one.positives))
        made = list(crops(passages, source=f"{name}_crops", rng=rng))
        write(options.train / f"{name}_crops.jsonl", made)
    own = [record.text.partition(": ")[2] for record in standard_library()]
    taught = [*own, *(text for _, text in docstrings("torch"))]
    pairs = [pair for text in taught if (pair := halves(text)) is not None]
    made = [Example(asks, (answers,), source="docstrings") for asks, answers in pairs]
    write(options.train / "docstrings.jsonl", list({one.query: one for one in made}.values()))
    write_valid(options.valid / "docstrings")


def write(path: Path, examples: list[Example]) -> None:
    write_examples(path, examples)
    print(f"{path.name}: {len(examples)} pairs")


def crops(passages: Sequence[str], *, source: str, rng: random.Random) -> Iterator[Example]:
    """Yield a pair for each passage of at least four sentences."""
    for passage in passages:
        sentences = _SENTENCE.split(passage)
        count = rng.choice((1, 2))
        if len(sentences) < 4:
            continue
        # the first sentence may begin with a title that has no full stop
        at = rng.randrange(1, len(sentences) - count + 1)
        query = " ".join(sentences[at : at + count])
        if 8 <= len(query.split()) <= 48:
            rest = " ".join([*sentences[:at], *sentences[at + count :]])
            yield Example(query, (rest,), source=source)


def docstrings(package: str) -> Iterator[tuple[str, str]]:
    """Yield name and docstring of a package's public functions and classes, each text once."""
    root = importlib.import_module(package)
    seen: set[str] = set()
    for module in [root, *submodules(root)]:
        for name in sorted(vars(module)):
            value: Any = vars(module)[name]
            if name.startswith("_") or inspect.ismodule(value) or not callable(value):
                continue
            text = getattr(value, "__doc__", None)
            if isinstance(text, str) and text not in seen:
                seen.add(text)
                yield f"{module.__name__}.{name}", inspect.cleandoc(text)


def submodules(root: ModuleType) -> Iterator[ModuleType]:
    for found in pkgutil.walk_packages(root.__path__, f"{root.__name__}.", onerror=lambda _: None):
        parts = found.name.split(".")[1:]
        if len(parts) > 2 or any(one.startswith("_") or "test" in one for one in parts):
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield importlib.import_module(found.name)
        except (ImportError, RuntimeError, AttributeError, OSError):
            continue  # a module for another platform or with a requirement that is not here


def halves(text: str) -> tuple[str, str] | None:
    """Return a docstring's first sentence and its rest in one line each; None if too short.

    A signature in front and the lists of parameters behind are no prose and are left out.
    """
    text = re.split(r"\n(?:Parameters|Args|Arguments|Examples?|Returns)\b", text)[0]
    paragraphs = [" ".join(one.split()) for one in re.split(r"\n\s*\n", text)]
    if paragraphs and re.match(r"^[\w.]+\(.*\)( ->.*)?$", paragraphs[0]):
        paragraphs = paragraphs[1:]
    query, _, rest = " ".join(paragraphs).partition(". ")
    if 4 <= len(query.split()) <= 30 and len(rest.split()) >= 12:
        return query, rest[:2000]
    return None


def write_valid(folder: Path) -> None:
    found = [
        (name, *pair)
        for package in ("numpy", "scipy")
        for name, text in docstrings(package)
        if (pair := halves(text)) is not None
    ]
    pairs = [Pair(name, query, (name,), ()) for name, query, _ in found]
    step = max(1, len(pairs) // VALID_DOCSTRINGS)
    valid = pairs[::step][:VALID_DOCSTRINGS]
    write_collection(folder, TrainingSet(pairs, {n: rest for n, _, rest in found}), valid)
    print(f"{folder}: {len(valid)} queries, {len(found)} documents")


if __name__ == "__main__":
    main()
