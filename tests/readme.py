"""README.md as the tests read it: sections, examples with what they print, tables."""

import re
from dataclasses import dataclass
from pathlib import Path

PATH = Path(__file__).parent.parent / "README.md"
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Example:
    """A block of Python and the block after it, which shows what it prints."""

    code: str
    shown: str


def sections() -> dict[str, str]:
    """Return the text of each ``##`` section by its heading; the first has none."""
    heading, *rest = re.split(r"^## (.*)\n", PATH.read_text("utf-8"), flags=re.MULTILINE)
    return {"": heading, **dict(zip(rest[::2], rest[1::2], strict=True))}


def blocks(text: str, language: str) -> list[str]:
    return [code for found, code in _FENCE.findall(text) if found == language]


def examples(text: str) -> list[Example]:
    """Return the examples in their order; every block of Python is one."""
    found = _FENCE.findall(text)
    places = [at for at, (language, _) in enumerate(found) if language == "python"]
    return [Example(found[at][1], found[at + 1][1]) for at in places]


def tables(text: str) -> list[list[list[str]]]:
    """Return the tables as rows of cells, without head and rule."""
    found = re.findall(r"^\|.*\n\| ?-.*\n((?:\|.*\n)+)", text, re.MULTILINE)
    return [[_cells(line) for line in rows.splitlines()] for rows in found]


def spans(cell: str) -> list[str]:
    """Return what a cell writes as code."""
    return re.findall(r"`([^`]+)`", cell)


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split(" | ")]
