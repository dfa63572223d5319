"""From a file's text to passages.

A passage is what one hit shows: about 200 words, never cut within a word, with its source
and line, and an id (``source#number``) that stays the same while the file does.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass

from m3_retrievers.types.hits import Record

PASSAGE_WORDS = 200

Function = ast.FunctionDef | ast.AsyncFunctionDef
# Of all statements only these have a name that is a str: that of `type X = ...` is a node.
Definition = ast.ClassDef | Function
_MARKDOWN_HEADING = re.compile(r"#{1,6}\s+(?P<title>.+)")

_RST_UNDERLINE = re.compile(r"([=\-~^\"'#*+.`:_])\1{2,}\s*")


@dataclass(frozen=True, slots=True)
class _Block:
    """A paragraph or a definition: its text, its first line (from 1), the heading above."""

    text: str
    line: int
    title: str


def read_passages(text: str, *, source: str) -> list[Record]:
    r"""Return one file's passages; metadata: source, line, title.

    Prose is split at headings and paragraphs, Python at its top-level definitions.

    >>> [p.id for p in read_passages("# One\n\nFirst.\n\n# Two\n\nSecond.", source="a.md")]
    ['a.md#1', 'a.md#2']
    """
    blocks = _python_blocks(text) if source.endswith(".py") else _prose_blocks(text)
    merged = _merged([part for block in blocks for part in _split(block)])
    return [
        Record(
            f"{source}#{number}",
            block.text,
            {"source": source, "line": block.line, "title": block.title or source},
        )
        for number, block in enumerate(merged, start=1)
    ]


def _prose_blocks(text: str) -> list[_Block]:
    """Split at empty lines; a Markdown or reST heading names what follows it."""
    blocks: list[_Block] = []
    title, lines, first = "", [""], 1
    all_lines = [*text.splitlines(), ""]
    for number, line in enumerate(all_lines, start=1):
        following = all_lines[number] if number < len(all_lines) else ""
        heading = _MARKDOWN_HEADING.fullmatch(line.strip())
        if heading:
            title = heading["title"].strip(" #")
        elif line.strip() and _is_underline(following, line):
            title = line.strip()
        if line.strip():
            first = number if not any(lines) else first
            lines.append(line)
        elif any(lines):
            blocks.append(_Block("\n".join(lines).strip(), first, title))
            lines = [""]
    return blocks


def _is_underline(line: str, above: str) -> bool:
    return bool(_RST_UNDERLINE.fullmatch(line)) and len(line.strip()) >= len(above.strip())


def _python_blocks(text: str) -> list[_Block]:
    """Split at top-level statements; a file that does not parse is split as prose."""
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError):
        return _prose_blocks(text)
    lines = text.splitlines()
    blocks, start, title = [], 1, ""
    for node in body:
        names = isinstance(node, Definition)
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
        if names and first > start:
            blocks.append(_Block("\n".join(lines[start - 1 : first - 1]).strip("\n"), start, title))
            start = first
        title = getattr(node, "name", "") if names else title
        if names:
            end = node.end_lineno or first
            blocks.append(_Block("\n".join(lines[start - 1 : end]), start, title))
            start, title = end + 1, ""
    blocks.append(_Block("\n".join(lines[start - 1 :]).strip("\n"), start, ""))
    return [block for block in blocks if block.text.strip()]


def _split(block: _Block) -> list[_Block]:
    """Cut a long block at line ends, or within a line between words."""
    parts: list[_Block] = []
    lines: list[str] = []
    first = block.line
    for number, line in enumerate(block.text.splitlines(), start=block.line):
        for piece in _pieces(line):
            if lines and _words([*lines, piece]) > PASSAGE_WORDS:
                parts.append(_Block("\n".join(lines), first, block.title))
                lines = []
            if not lines:
                first = number
            lines.append(piece)
    return [*parts, _Block("\n".join(lines), first, block.title)] if lines else parts


def _pieces(line: str) -> list[str]:
    words = line.split()
    if len(words) <= PASSAGE_WORDS:
        return [line]
    return [" ".join(words[at : at + PASSAGE_WORDS]) for at in range(0, len(words), PASSAGE_WORDS)]


def _merged(blocks: Sequence[_Block]) -> list[_Block]:
    """Join neighbours under one title while they stay within a passage."""
    merged: list[_Block] = []
    for block in blocks:
        if merged and merged[-1].title == block.title:
            both = f"{merged[-1].text}\n\n{block.text}"
            if _words([both]) <= PASSAGE_WORDS:
                merged[-1] = _Block(both, merged[-1].line, block.title)
                continue
        merged.append(block)
    return merged


def _words(lines: Sequence[str]) -> int:
    return sum(len(line.split()) for line in lines)
