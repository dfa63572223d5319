"""What the benchmarks share: documents every machine has, timing, and raw results as JSON."""

from __future__ import annotations

import ast
import json
import os
import platform
import random
import sysconfig
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
_PACKAGES = (
    "m3-retrievers",
    "torch",
    "transformers",
    "numpy",
    "FlagEmbedding",
    "llama-index-indices-managed-bge-m3",
)
_NO_PROSE = {"test", "tests", "idlelib", "lib2to3", "site-packages", "dist-packages", "__pycache__"}


def standard_library_texts(count: int, *, seed: int = 0, shortest: int = 200) -> list[str]:
    """Return distinct docstrings and language reference passages of the running Python.

    Files are read, nothing is imported. Texts have at least ``shortest`` characters; passages
    of the reference are joined up to about 1,200, so lengths run from two sentences to some
    hundreds of tokens.
    """
    found = {*_docstrings(), *_reference_passages()}
    texts = sorted(text for text in found if len(text) >= shortest)
    random.Random(seed).shuffle(texts)
    if len(texts) < count:
        raise SystemExit(f"the standard library has {len(texts)} texts, {count} were asked for")
    return texts[:count]


def standard_library_questions(count: int, *, seed: int = 0) -> list[str]:
    """Return distinct questions made of the first sentences of docstrings."""
    sentences = {text.split("\n\n")[0].replace("\n", " ") for text in _docstrings() if text}
    chosen = sorted(s.rstrip(".") for s in sentences if 5 <= len(s.split()) <= 15 and "(" not in s)
    random.Random(seed + 1).shuffle(chosen)
    return [f"how do I {s[0].lower()}{s[1:]}?" for s in chosen[:count]]


def _docstrings() -> Iterator[str]:
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        if _NO_PROSE.isdisjoint(path.relative_to(root).parts):
            for node in ast.walk(ast.parse(path.read_bytes())):
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                    yield ast.get_docstring(node) or ""


def _reference_passages(*, size: int = 1200) -> Iterator[str]:
    from pydoc_data.topics import topics

    for topic in topics.values():
        yield from passages(topic, size=size)


def passages(text: str, *, size: int) -> Iterator[str]:
    """Yield a text's paragraphs, joined while they stay below so many characters."""
    passage = ""
    for paragraph in text.split("\n\n"):
        if passage and len(passage) + len(paragraph) > size:
            yield passage
            passage = ""
        passage += ("\n\n" if passage else "") + paragraph.strip()
    yield passage


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return seconds of wall clock and the result."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def machine(*, threads: int) -> dict[str, Any]:
    """Return what a reader needs to judge the times."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "torch_threads": threads,
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        "packages": found,
        "date": time.strftime("%Y-%m-%d"),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def spread(values: list[int]) -> dict[str, float]:
    """Return count, sum and quantiles of lengths."""
    ordered = sorted(values)
    at = {name: ordered[int(q * (len(ordered) - 1))] for name, q in _QUANTILES.items()}
    return {"count": len(ordered), "sum": sum(ordered), **at}


_QUANTILES = {"min": 0.0, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95, "max": 1.0}


def read_result(target: Path) -> dict[str, Any]:
    """Return what was kept, {} for nothing: a part that is run again replaces its own."""
    held: dict[str, Any] = json.loads(target.read_text("utf-8")) if target.exists() else {}
    return held


def put_table(page: Path, name: str, table: str) -> None:
    """Put a table between its marks on a page."""
    first, last = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, rest = page.read_text("utf-8").split(first)
    page.write_text(f"{before}{first}\n{table}\n{last}{rest.split(last)[1]}", "utf-8")


def write_result(target: Path, result: dict[str, Any]) -> None:
    """Write the raw numbers behind a table of README.md."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    print(f"written: {target}")
