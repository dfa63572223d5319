"""Where a text's paragraphs and definitions begin and end, and what they are called."""

from __future__ import annotations

import ast
import re
import warnings
from dataclasses import dataclass
from itertools import accumulate

Function = ast.FunctionDef | ast.AsyncFunctionDef
# Of all statements only these have a name that is a str: that of `type X = ...` is a node.
Definition = ast.ClassDef | Function

# A title stands in the metadata of every passage below it; a line of a megabyte is none.
_TITLE_LENGTH = 200
# A syntax tree takes a hundred times its source's memory; what is longer than this is data.
_PARSED_LENGTH = 2_000_000

_MARKDOWN_HEADING = re.compile(r"#{1,6}\s+(?P<title>.+)")
_RST_UNDERLINE = re.compile(r"([=\-~^\"'#*+.`:_])\1{2,}\s*")


@dataclass(frozen=True, slots=True)
class Block:
    """A paragraph or a definition: its first character, the one after its last, the title above."""

    start: int
    end: int
    title: str


def prose_blocks(text: str) -> list[Block]:
    r"""Split at empty lines; a Markdown or reST heading names what follows it.

    >>> [(block.start, block.end, block.title) for block in prose_blocks("# One\n\nFirst.")]
    [(0, 5, 'One'), (7, 13, 'One')]
    """
    blocks: list[Block] = []
    title, start, end, offset = "", -1, 0, 0
    lines = text.split("\n")
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        bare = line.strip()
        heading = _MARKDOWN_HEADING.fullmatch(bare)
        if heading:
            title = heading["title"].strip(" #")[:_TITLE_LENGTH]
        elif bare and _is_underline(following, bare):
            title = bare[:_TITLE_LENGTH]
        if bare:
            start = offset if start < 0 else start
            end = offset + len(line.rstrip())
        elif start >= 0:
            blocks.append(Block(start, end, title))
            start = -1
        offset += len(line) + 1
    return [*blocks, Block(start, end, title)] if start >= 0 else blocks


def _is_underline(line: str, above: str) -> bool:
    return bool(_RST_UNDERLINE.fullmatch(line)) and len(line.strip()) >= len(above)


def python_blocks(text: str) -> list[Block]:
    r"""Split at top-level definitions; a file that does not parse is split as prose.

    >>> [(block.start, block.end, block.title) for block in python_blocks("x = 1\ndef f(): ...\n")]
    [(0, 6, ''), (6, 18, 'f')]
    """
    tree = parsed(text) if len(text) <= _PARSED_LENGTH else None
    if tree is None:
        return prose_blocks(text)
    # lines end where Python's own do: a form feed, say, ends none
    starts = [0, *accumulate(len(line) + 1 for line in text.split("\n"))]
    blocks, line = [], 1
    for node in tree.body:
        if isinstance(node, Definition):
            first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
            last = node.end_lineno or first
            title = node.name[:_TITLE_LENGTH]
            blocks.append(Block(starts[line - 1], starts[first - 1], ""))
            blocks.append(Block(starts[first - 1], min(starts[last] - 1, len(text)), title))
            line = last + 1
    blocks.append(Block(starts[line - 1], len(text), ""))
    return [block for block in blocks if text[block.start : block.end].strip()]


def parsed(source: str | bytes) -> ast.Module | None:
    """Return the syntax tree of Python code, None for what is none or too deep to be read.

    The parser's warnings, such as those about escapes in strings, are their author's business.

    >>> parsed("-" * 200_000) is None
    True
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None
