"""Training lines with long questions, made from what the training sets hold.

Question sets ask in one short sentence. Readers who describe a need write several, half of them
boilerplate, and some paste an abstract and want more like it::

    python benchmarks/narrative_pairs.py --train FOLDER/train --out FOLDER/narrative

- joined: the questions about one passage, in a row, some with the phrases people write around them
- halves: some sentences of a passage ask, the others answer; either half may be the longer one
- padded: a statement of what a paper is about, with such phrases, asks for its abstract
"""

from __future__ import annotations

import argparse
import random
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from m3_retrievers.training import Example, read_examples, write_examples

JOINED = ("squad_en", "fairytaleqa_sections_en", "selqa_en")
HALVED = ("scitldr_en", "squad_en")
PADDED = ("scitldr_en",)
BEFORE = (
    "I am interested in the following.",
    "I would like information on this subject.",
    "Please look for articles that deal with the question below.",
    "The reader is collecting material on one topic.",
    "For a report I need to find out what is known here.",
    "Describe what has been written about this.",
    "We are looking for descriptions, both general and specific.",
    "What work has been done in this area?",
)
AFTER = (
    "Any article that helps to answer this is of use.",
    "Examples and descriptions of particular cases are welcome.",
    "Accounts of methods and their results would be relevant.",
    "What problems are met, and how are they solved?",
    "Give both present and earlier work.",
    "Articles that mention it only in passing are of less interest.",
    "What are the main aspects of the subject?",
    "Background information may be included.",
)
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'(])")
# Questions that share a passage, in one line.
_MOST_JOINED = 4
# Negatives kept a line: those of the questions it was made of.
_NEGATIVES = 7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=Path, required=True, help="lines, mined ones if there are")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    rng = random.Random(0)
    sets = {name: read_examples(options.train / f"{name}.jsonl") for name in (*JOINED, *HALVED)}
    made = {f"{name}_joined": joined(sets[name], rng) for name in JOINED}
    made |= {f"{name}_halves": halves(sets[name], rng) for name in HALVED}
    made |= {f"{name}_padded": padded(sets[name], rng) for name in PADDED}
    for name, examples in made.items():
        count = write_examples(options.out / f"{name}.jsonl", examples)
        print(f"{name}: {count} lines")


def joined(examples: Sequence[Example], rng: random.Random) -> Iterator[Example]:
    """Yield a line for every two to four questions that one passage answers."""
    about: defaultdict[str, list[Example]] = defaultdict(list)
    for one in examples:
        about[one.positives[0]].append(one)
    for passage, several in about.items():
        rng.shuffle(several)
        while len(several) > 1:
            count = min(len(several), rng.randint(2, _MOST_JOINED))
            chosen, several = several[:count], several[count:]
            text = phrased(" ".join(sentence(one.query) for one in chosen), rng)
            known = {text for one in chosen for text in one.positives}
            found = dict.fromkeys(text for one in chosen for text in one.negatives)
            negatives = [text for text in found if text not in known]
            rng.shuffle(negatives)
            yield Example(text, (passage,), tuple(negatives[:_NEGATIVES]))


def halves(examples: Sequence[Example], rng: random.Random) -> Iterator[Example]:
    """Yield a line for each passage of at least four sentences: two halves, one asks."""
    for passage in dict.fromkeys(text for one in examples for text in one.positives):
        sentences = _SENTENCE.split(passage)
        if len(sentences) < 4:
            continue
        count = rng.randint(2, len(sentences) - 2)
        # every other half is torn out of the whole text, as an abstract tells of a paper
        at = rng.randint(0, len(sentences) - count)
        chosen = set(range(at, at + count))
        if rng.random() < 0.5:
            chosen = set(rng.sample(range(len(sentences)), count))
        asks = " ".join(sentences[row] for row in sorted(chosen))
        answers = " ".join(text for row, text in enumerate(sentences) if row not in chosen)
        yield Example(asks, (answers,))


def padded(examples: Sequence[Example], rng: random.Random) -> Iterator[Example]:
    """Yield each line with phrases around its question."""
    for one in examples:
        text = phrased(sentence(one.query), rng, always=True)
        yield Example(text, one.positives, one.negatives)


def phrased(text: str, rng: random.Random, *, always: bool = False) -> str:
    """Return the text with a phrase before it, behind it, both or neither."""
    before = rng.random() < 0.5
    after = rng.random() < 0.5 or (always and not before)
    parts = [rng.choice(BEFORE) if before else "", text, rng.choice(AFTER) if after else ""]
    return " ".join(part for part in parts if part)


def sentence(text: str) -> str:
    """Return the text with a capital first letter and a mark at its end.

    >>> sentence("how bees dance")
    'How bees dance.'
    """
    text = text.strip()
    text = text[:1].upper() + text[1:]
    return text if text[-1:] in ".?!" else f"{text}."


if __name__ == "__main__":
    main()
