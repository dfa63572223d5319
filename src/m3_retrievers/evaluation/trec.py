"""Runs and judgements as TREC writes them: columns parted by white space.

An id that such a file cannot hold as it is (empty, or with white space, control characters or
lone surrogates in it) is written as RFC 8187 writes such values, ``utf-8''`` and the id
percent-encoded: ``my file.md`` is ``utf-8''my%20file.md``. Every other id stands as it is, so
tools that compare ids with those of your own files find them; ``read_run`` and ``read_qrels``
give back the same ids that were written.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeAlias
from urllib.parse import quote, unquote

import numpy as np

from m3_retrievers.errors import DatasetError

# Document ids and scores, best first, by query.
RankedRun: TypeAlias = dict[str, tuple[list[str], list[float]]]

_ENCODED = "utf-8''"


def write_run(
    path: str | os.PathLike[str],
    run: Mapping[str, tuple[list[str], list[float]]],
    *,
    tag: str = "m3-retrievers",
) -> None:
    """Write a run: query, Q0, document, rank, score and the run's tag a line.

    A score that ties with the one before is lowered by the least float32, so that every tool
    reads the same order and finds the same figures. A query without documents has no line.
    """
    lines = (
        f"{to_column(query)} Q0 {to_column(id)} {rank} {score:.9g} {to_column(tag)}\n"
        for query, (ids, scores) in run.items()
        for rank, (id, score) in enumerate(zip(ids, _falling(scores), strict=True), 1)
    )
    Path(path).write_text("".join(lines), "utf-8", newline="\n")


def read_run(path: str | os.PathLike[str]) -> RankedRun:
    """Return the run of a file: ids and scores by query, best first, ties in the file's order.

    Raises DatasetError, naming the file and line, for what is no TREC run.
    """
    found: dict[str, dict[str, float]] = {}
    for place, (query, _, id, _, score, _) in _rows(Path(path), 6):
        scores = found.setdefault(from_column(query), {})
        if from_column(id) in scores:
            raise DatasetError(f"{place} expects each document once a query, got {id!r} again.")
        try:
            scores[from_column(id)] = float(score)
        except ValueError:
            raise DatasetError(f"{place} expects a score, got {score!r}.") from None
    best = {query: sorted(s.items(), key=lambda one: -one[1]) for query, s in found.items()}
    return {q: ([id for id, _ in rows], [score for _, score in rows]) for q, rows in best.items()}


def write_qrels(path: str | os.PathLike[str], qrels: Mapping[str, Mapping[str, int]]) -> None:
    """Write judgements: query, 0, document and grade a line; to go with ``write_run``'s files."""
    lines = (
        f"{to_column(query)} 0 {to_column(id)} {grade}\n"
        for query, grades in qrels.items()
        for id, grade in grades.items()
    )
    Path(path).write_text("".join(lines), "utf-8", newline="\n")


def read_qrels(path: str | os.PathLike[str]) -> dict[str, dict[str, int]]:
    """Return grades by query and document; DatasetError for what is no file of judgements."""
    found: dict[str, dict[str, int]] = {}
    for place, (query, _, id, grade) in _rows(Path(path), 4):
        try:
            found.setdefault(from_column(query), {})[from_column(id)] = int(grade)
        except ValueError:
            raise DatasetError(f"{place} expects a whole grade, got {grade!r}.") from None
    return found


def to_column(id: str) -> str:
    """Return an id as one column of a TREC file.

    >>> to_column("d1"), to_column("my file.md")
    ('d1', "utf-8''my%20file.md")
    """
    simple = id.isascii() and id.isprintable() and " " not in id  # most are, and it is quick
    if id and not id.startswith(_ENCODED) and (simple or not any(map(_splits, id))):
        return id
    return _ENCODED + quote(id, safe="", errors="surrogatepass")


def from_column(column: str) -> str:
    """Return the id that a column stands for.

    >>> from_column("utf-8''my%20file.md"), from_column("50%20")
    ('my file.md', '50%20')
    """
    if not column.startswith(_ENCODED):
        return column
    return unquote(column.removeprefix(_ENCODED), errors="surrogatepass")


def _splits(character: str) -> bool:
    """Return whether some tool would end a column or a line here, or cannot write it."""
    return character.isspace() or unicodedata.category(character) in ("Cc", "Cs")


def _rows(path: Path, columns: int) -> Iterator[tuple[str, list[str]]]:
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                row = line.split()
                if len(row) != columns:
                    raise DatasetError(
                        f"{path}:{number} expects {columns} columns parted by white space, got "
                        f"{len(row)}."
                    )
                yield f"{path}:{number}", row
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} is expected to be a TREC file ({error}).") from error


def _falling(scores: list[float]) -> list[float]:
    """Return descending scores as float32 values, each below the one before it.

    >>> [f"{score:.9g}" for score in _falling([2.0, 1.0, 1.0, 1.0])]
    ['2', '1', '0.99999994', '0.999999881']
    """
    falling = np.asarray(scores, np.float32)
    while (ties := np.flatnonzero(np.diff(falling) >= 0)).size:
        falling[ties + 1] = np.nextafter(falling[ties], np.float32(-np.inf))
    return [float(score) for score in falling]
