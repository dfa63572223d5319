"""The table of speeds in README.md, from ``results/speed_encode.json`` and ``speed_scoring.json``.

::

    python benchmarks/speed_page.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common import RESULTS, put_table, read_result

PAGE = Path(__file__).with_name("README.md")
# What is measured, under which keys of the results, by which row of them, and how many times as
# fast as the peer it is meant to be.
ROWS = [
    ("a query of 14 tokens, full size, fp32", ("rows", "query"), "ours, fp32", 6),
    ("the same, bf16", ("rows", "query"), "ours, bf16", 12),
    ("64 passages, MiniLM's size, fp32", ("rows", "passages"), "ours, fp32", 7),
    ("the same, bf16", ("rows", "passages"), "ours, bf16", 10),
    ("m3-mini, 32 passages of 256 tokens, fp32", ("rows", "mini"), "ours, fp32", 2),
    ("the same, bf16", ("rows", "mini"), "ours, bf16", 3.5),
    ("a text of 2,048 tokens, fp32", ("rows", "long 2,048"), "ours, fp32", 2.6),
    ("a text of 8,192 tokens, fp32", ("rows", "long 8,192"), "ours, fp32", 2.2),
    ("process start to first hit", ("rows", "start"), "first hit, saved index", None),
    ("MaxSim, 200 × 128 × 1,024", ("maxsim", "200 x 128 x 1024"), "ours, float16 store", 2.5),
    ("MaxSim, 1,000 × 128 × 1,024", ("maxsim", "1000 x 128 x 1024"), "ours, float16 store", 4),
    ("the same, vectors kept in int8", ("maxsim", "1000 x 128 x 1024"), "ours, int8 store", 4),
    ("MaxSim, 200 × 128 × 384", ("maxsim", "200 x 128 x 384"), "ours, float16 store", 4),
    ("MaxSim, 1,000 × 128 × 384", ("maxsim", "1000 x 128 x 384"), "ours, float16 store", 4),
    ("the same, vectors kept in int8", ("maxsim", "1000 x 128 x 384"), "ours, int8 store", 4),
    ("lexical top 100 of 100,000", ("lexical", "100,000 documents"), "ours", 40),
    ("lexical top 100 of 1,000,000", ("lexical", "1,000,000 documents"), "ours", 40),
    ("BM25 of 100,000, a query", ("bm25", "query"), "ours", 1),
    ("BM25 of 100,000, build", ("bm25", "build"), "ours", None),
    ("dense top 10 of 100,000 × 1,024", ("dense", "one"), "ours, top 10", 2.5),
    ("the same, 64 queries", ("dense", "64"), "ours", 2.5),
]


def main() -> None:
    """Put the table between its marks."""
    held = read_result(RESULTS / "speed_encode.json") | read_result(RESULTS / "speed_scoring.json")
    lines = [
        "| work | peer, ms | ours, ms, median (least to most) | at the least, ms | times as fast "
        "| aim | load |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for work, (part, row), name, aim in ROWS:
        found = held.get(part, {}).get(row)
        if found is not None:
            lines.append(_line(work, found, name, aim))
    put_table(PAGE, "speed", "\n".join(lines))


def _line(work: str, found: dict[str, Any], name: str, aim: float | None) -> str:
    ours, peer = found["rows"][name], found["rows"][found["baseline"]]
    cells = [
        work,
        f"{found['baseline']} {_ms(peer['median'])}",
        f"{_ms(ours['median'])} ({_ms(ours['min'])} to {_ms(ours['max'])})",
        _ms(found["least_ms"][name]) if "least_ms" in found else "",
        f"{ours['times']:.2g} ×",
        "" if aim is None else f"{aim:g} ×",
        f"{max(found['load']):.1f}",
    ]
    return f"| {' | '.join(cells)} |"


def _ms(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    main()
