"""From files to passages: a user's own folder, and the standard library's docstrings.

A passage is what one hit shows: about 200 words, never cut within a word, with its source
and line, and an id (``source#number``) that stays the same while the file does.
"""

from __future__ import annotations

import ast
import os
import re
import sysconfig
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from m3_retrievers.errors import InputError
from m3_retrievers.representations import Record

ENDINGS = (".md", ".txt", ".rst", ".py")
PASSAGE_WORDS = 200
DOCSTRING_WORDS = 120

_SKIPPED_FOLDERS = {"__pycache__", "node_modules", "site-packages", "venv", "build", "dist"}
_NO_DOCUMENTATION = {
    "test",
    "tests",
    "idlelib",
    "lib2to3",
    "distutils",
    "turtledemo",
    "site-packages",
    "dist-packages",
}
_MARKDOWN_HEADING = re.compile(r"#{1,6}\s+(?P<title>.+)")
_RST_UNDERLINE = re.compile(r"([=\-~^\"'#*+.`:_])\1{2,}\s*")
_Function = ast.FunctionDef | ast.AsyncFunctionDef
# Of all statements only these have a name that is a str: that of `type X = ...` is a node.
_Definition = ast.ClassDef | _Function


@dataclass(frozen=True, slots=True)
class Folder:
    """What a folder gave: its passages, and the files that were left out, with the reason."""

    passages: tuple[Record, ...]
    files: int
    left_out: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Block:
    """A paragraph or a definition: its text, its first line (from 1), the heading above."""

    text: str
    line: int
    title: str


def read_folder(folder: str | Path) -> Folder:
    """Return the passages of all .md, .txt, .rst and .py files below a folder.

    Hidden folders, virtual environments and caches are passed over, links are not followed.
    Raises InputError for a path that is no folder.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"expected a folder with documents, got {str(root)!r}. Check the path.")
    passages: list[Record] = []
    left_out: dict[str, int] = {}
    files = 0
    for path in _files(root):
        if path.suffix.lower() not in ENDINGS:
            _count(left_out, "of another kind")
            continue
        content = path.read_bytes()
        text = content.decode("utf-8", errors="replace")
        if b"\0" in content:
            _count(left_out, "binary")
        elif not text.strip():
            _count(left_out, "empty")
        else:
            files += 1
            passages += read_passages(text, source=path.relative_to(root).as_posix())
            if "\ufffd" in text:
                _count(left_out, "with undecodable bytes, read with a mark in their place")
    return Folder(tuple(passages), files, left_out)


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


def standard_library(
    limit: int | None = None, *, modules: Collection[str] | None = None
) -> list[Record]:
    """Return the docstrings of the running Python's standard library, found without importing.

    A document is a qualified name, the signature and the docstring's first 120 words, of
    public modules, classes and functions; metadata: name, kind, source, line. ``limit``
    keeps every n-th, spread over the whole library. modules: names of top-level modules, which
    alone are read; None for all.
    """
    root = Path(sysconfig.get_path("stdlib"))
    found: dict[str, Record] = {}
    for path in sorted(root.rglob("*.py")):
        place = path.relative_to(root)
        parts = [part for part in (*place.parts[:-1], place.stem) if part != "__init__"]
        hidden = any(part.startswith("_") or part in _NO_DOCUMENTATION for part in parts)
        if hidden or not parts or parts[0].startswith("config-"):
            continue
        if modules is not None and parts[0] not in modules:
            continue
        for record in _docstrings(path, ".".join(parts), place.as_posix()):
            found.setdefault(record.id, record)
    records = list(found.values())
    if limit is None or limit >= len(records):
        return records
    return [records[at * len(records) // limit] for at in range(limit)]


def _docstrings(path: Path, module: str, source: str) -> Iterator[Record]:
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return  # the library ships a few files that are meant not to parse
    todo: list[tuple[str, ast.Module | _Definition]] = [(module, tree)]
    while todo:
        name, node = todo.pop(0)
        docstring = " ".join((ast.get_docstring(node) or "").split()[:DOCSTRING_WORDS])
        if len(docstring.split()) >= 4:
            kind = {ast.Module: "module", ast.ClassDef: "class"}.get(type(node), "function")
            yield Record(
                name,
                f"{name}{_signature(node)}: {docstring}",
                {"name": name, "kind": kind, "source": source, "line": getattr(node, "lineno", 1)},
            )
        if not isinstance(node, _Function):
            for child in node.body:
                if isinstance(child, _Definition) and not child.name.startswith("_"):
                    todo.append((f"{name}.{child.name}", child))


def _signature(node: ast.AST) -> str:
    if isinstance(node, _Function):
        return f"({ast.unparse(node.args)})"
    return ""


def _files(root: Path) -> Iterator[Path]:
    """Yield the files below a folder in a fixed order."""
    for place, folders, names in os.walk(root, followlinks=False):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".")
            and name not in _SKIPPED_FOLDERS
            and not (Path(place) / name / "pyvenv.cfg").exists()
        )
        for name in sorted(names):
            path = Path(place) / name
            if not name.startswith(".") and path.is_file():
                yield path


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
        names = isinstance(node, _Definition)
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


def _count(counts: dict[str, int], reason: str) -> None:
    counts[reason] = counts.get(reason, 0) + 1
