"""Which home for which size: the same documents in every home, each in a process of its own.

::

    python benchmarks/homes.py agree --work FOLDER               2,000 real documents, 200 questions
    python benchmarks/homes.py measure --work FOLDER --documents 10000
    python benchmarks/homes.py page                              homes.md and its picture

Each run adds what it found to ``results/homes.json``, so that homes and sizes may be run one by
one; what was run again replaces what was there.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from common import RESULTS, machine, write_result

RESULT = RESULTS / "homes.json"
HOMES = ("local", "durable", "qdrant", "postgresql", "milvus")


def main() -> None:
    options = _options()
    held = json.loads(RESULT.read_text("utf-8")) if RESULT.exists() else {"runs": [], "agree": {}}
    if options.step == "page":
        from homes_page import write_page

        write_page(held)
        return
    options.work.mkdir(parents=True, exist_ok=True)
    for home in options.homes:
        if options.step == "agree":
            found = _process("agree", home, options)
            held["agree"][home] = [_line(hits) for hits in found["hits"]]
        else:
            _keep(held["runs"], _measured(home, options))
        held["machine"] = machine(threads=1)
        write_result(RESULT, held)


def _line(hits: list[list[Any]]) -> str:
    """Return hits as ``number:score`` in their order: short, so that all can be kept."""
    return " ".join(f"{int(id.removeprefix('text-'))}:{score}" for id, score in hits)


def _measured(home: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return what one home did with so many documents, its hits beside the exact ones."""
    folder = options.work / f"{home}-{options.documents}-{options.colbert}"
    shutil.rmtree(folder, ignore_errors=True)
    found = _process("build", home, options)
    exact = options.work / f"exact-{options.documents}-{options.colbert}.json"
    if "error" not in found:
        found |= _process("open", home, options)
        if home == "local":
            exact.write_text(json.dumps(found["hits"]))
        if exact.exists() and found["documents"] == options.documents:
            found["recall_at_10"] = _recall(found["hits"], json.loads(exact.read_text()))
        del found["hits"]
    shutil.rmtree(folder, ignore_errors=True)
    return {
        "home": home,
        "documents": options.documents,
        "colbert": options.colbert,
        "width": options.width,
        **{("reached" if key == "documents" else key): value for key, value in found.items()},
    }


def _recall(found: list[list[str]], exact: list[list[str]]) -> float:
    """Return the share of the exact first ten that came out."""
    pairs = list(zip(found, exact, strict=False))
    return sum(len(set(a) & set(b)) for a, b in pairs) / sum(len(b) for _, b in pairs)


def _keep(runs: list[dict[str, Any]], run: dict[str, Any]) -> None:
    same = ("home", "documents", "colbert", "width")
    runs[:] = [one for one in runs if any(one[key] != run[key] for key in same)]
    runs.append(run)
    print({key: value for key, value in run.items() if key not in same}, run["home"])


def _process(step: str, home: str, options: argparse.Namespace) -> dict[str, Any]:
    script = str(Path(__file__).with_name("home_process.py"))
    arguments = [step, home, str(options.work)]
    for name in ("documents", "queries", "colbert", "width", "build_s", "search_s"):
        arguments += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    done = subprocess.run(
        [sys.executable, script, *arguments], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        return {"error": f"ended with {done.returncode}", "documents": 0}
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=["agree", "measure", "page"])
    parser.add_argument("--work", type=Path, help="where homes are made, and removed again")
    parser.add_argument("--homes", nargs="+", choices=HOMES, default=list(HOMES))
    parser.add_argument("--documents", type=int)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--colbert", type=int, default=32, help="token vectors a document; 0: none")
    parser.add_argument("--width", type=int, default=64, help="of a token vector")
    parser.add_argument("--build-s", type=float, default=600, help="stop adding after so long")
    parser.add_argument("--search-s", type=float, default=60, help="stop searching after so long")
    options = parser.parse_args()
    if options.documents is None:
        options.documents = 2000 if options.step == "agree" else 10_000
    if options.step != "page" and options.work is None:
        parser.error("--work expects a folder")
    return options


if __name__ == "__main__":
    main()
