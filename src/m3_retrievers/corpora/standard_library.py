"""The standard library's docstrings: real texts that every machine with Python holds."""

from __future__ import annotations

import ast
import sysconfig
from collections.abc import Collection, Iterator
from pathlib import Path

from m3_retrievers.corpora.blocks import Definition, Function, parsed
from m3_retrievers.types.hits import Record

DOCSTRING_WORDS = 120

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
    for path in _files(root, modules):
        place = path.relative_to(root)
        parts = [part for part in (*place.parts[:-1], place.stem) if part != "__init__"]
        if not any(map(_is_hidden, parts)):
            for record in _docstrings(path, ".".join(parts), place.as_posix()):
                found.setdefault(record.id, record)
    records = list(found.values())
    if limit is None or limit >= len(records):
        return records
    return [records[at * len(records) // limit] for at in range(limit)]


def _files(root: Path, modules: Collection[str] | None) -> Iterator[Path]:
    """Yield the files of the modules asked for, in order; site-packages is never walked."""
    for top in sorted(root.iterdir()):
        if _is_hidden(top.name) or (modules is not None and top.stem not in modules):
            continue
        if top.is_dir():
            yield from sorted(top.rglob("*.py"))
        elif top.suffix == ".py":
            yield top


def _is_hidden(name: str) -> bool:
    return name.startswith(("_", "config-")) or name in _NO_DOCUMENTATION


def _docstrings(path: Path, module: str, source: str) -> Iterator[Record]:
    tree = parsed(path.read_bytes())
    if tree is None:
        return  # the library ships a few files that are meant not to parse
    todo: list[tuple[str, ast.Module | Definition]] = [(module, tree)]
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
        if not isinstance(node, Function):
            for child in node.body:
                if isinstance(child, Definition) and not child.name.startswith("_"):
                    todo.append((f"{name}.{child.name}", child))


def _signature(node: ast.AST) -> str:
    if isinstance(node, Function):
        return f"({ast.unparse(node.args)})"
    return ""
