"""Training data: lines of JSON in FlagEmbedding's format, read into checked records.

A line is ``{"query": str, "pos": [str], "neg": [str]}``, with ``"pos_scores"`` and
``"neg_scores"`` where an outside teacher has scored the passages.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m3_retrievers.errors import TrainingDataError

_KEYS = {"query", "pos", "neg", "pos_scores", "neg_scores", "prompt", "type"}


@dataclass(frozen=True, slots=True)
class Example:
    """A query with passages that answer it and passages that do not.

    positives: at least one. negatives: may be empty; other queries' passages then serve.
    positive_scores, negative_scores: one teacher score a passage (any scale, higher is
    better), or None. source: the data set it came from; batches are drawn from one source.
    """

    query: str
    positives: tuple[str, ...]
    negatives: tuple[str, ...] = ()
    positive_scores: tuple[float, ...] | None = None
    negative_scores: tuple[float, ...] | None = None
    source: str = ""

    def __post_init__(self) -> None:
        if not self.positives:
            raise TrainingDataError(
                f"An example expects at least one positive passage, got none for the query "
                f"{self.query[:60]!r}. Add the passage that answers it, or drop the line."
            )
        pairs = [
            ("pos_scores", self.positive_scores, self.positives),
            ("neg_scores", self.negative_scores, self.negatives),
        ]
        for name, scores, passages in pairs:
            if scores is not None and len(scores) != len(passages):
                raise TrainingDataError(
                    f"{name} expects one score a passage ({len(passages)}), got {len(scores)} for "
                    f"the query {self.query[:60]!r}. Score every passage, or leave it out."
                )


def read_examples(path: str | os.PathLike[str], *, source: str | None = None) -> list[Example]:
    """Return the examples of a .jsonl file, or of every .jsonl file of a folder in name order.

    source: what to call the data set; the file's name without its ending by default.
    Raises TrainingDataError, naming file and line, where a line is no example.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(path.glob("*.jsonl"))
        return [one for file in files for one in read_examples(file, source=source)]
    if not path.is_file():
        raise TrainingDataError(
            f"{path} is expected to be a .jsonl file or a folder of them, and is not there."
        )
    examples = []
    try:
        with path.open(encoding="utf-8-sig") as lines:  # some editors put a byte order mark first
            for number, line in enumerate(lines, 1):
                if line.strip():
                    examples.append(_example(line, f"{path}:{number}", source or path.stem))
    except UnicodeDecodeError as error:
        raise TrainingDataError(f"{path} is expected to be UTF-8: {error}. Convert it.") from error
    return examples


def write_examples(path: str | os.PathLike[str], examples: Iterable[Example]) -> int:
    """Write examples as lines that ``read_examples`` and FlagEmbedding read; return how many."""
    count = 0
    with Path(path).open("w", encoding="utf-8") as file:
        for one in examples:
            count += 1
            line: dict[str, Any] = {
                "query": one.query,
                "pos": list(one.positives),
                "neg": list(one.negatives),
            }
            if one.positive_scores is not None:
                line["pos_scores"] = list(one.positive_scores)
            if one.negative_scores is not None:
                line["neg_scores"] = list(one.negative_scores)
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    return count


def _example(line: str, place: str, source: str) -> Example:
    try:
        content = json.loads(line)
    except json.JSONDecodeError as error:
        raise TrainingDataError(f"{place} is expected to hold JSON: {error}.") from error
    if not isinstance(content, dict) or not isinstance(content.get("query"), str):
        raise TrainingDataError(
            f"{place} expects an object with a 'query' string, got {line.strip():.80}."
        )
    unknown = set(content) - _KEYS
    if unknown:
        raise TrainingDataError(
            f"{place} has unknown keys {sorted(unknown)}; known are {sorted(_KEYS)}. Rename or "
            "drop them."
        )
    prompt = content.get("prompt") or ""
    if not isinstance(prompt, str):
        raise TrainingDataError(f"{place} expects 'prompt' to be a string, got {prompt!r:.80}.")
    try:
        return Example(
            query=prompt + content["query"],
            positives=_texts(content, "pos", place),
            negatives=_texts(content, "neg", place),
            positive_scores=_scores(content, "pos_scores", place),
            negative_scores=_scores(content, "neg_scores", place),
            source=source,
        )
    except TrainingDataError as error:
        if str(error).startswith(place):
            raise
        raise TrainingDataError(f"{place}: {error}") from error


def _texts(content: dict[str, Any], key: str, place: str) -> tuple[str, ...]:
    value: Sequence[Any] = content.get(key) or ()
    if not isinstance(value, list | tuple) or not all(isinstance(text, str) for text in value):
        raise TrainingDataError(
            f"{place} expects '{key}' to be a list of strings, got {value!r:.80}."
        )
    return tuple(value)


def _scores(content: dict[str, Any], key: str, place: str) -> tuple[float, ...] | None:
    value = content.get(key)
    if value is None:
        return None
    numbers = isinstance(value, list) and all(
        isinstance(one, int | float) and not isinstance(one, bool) and math.isfinite(one)
        for one in value
    )
    if not numbers:
        raise TrainingDataError(
            f"{place} expects '{key}' to be a list of numbers, got {value!r:.80}."
        )
    return tuple(float(one) for one in value)
