"""The tables and the picture of ``homes.md``, from ``results/homes.json``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from common import RESULTS, put_table

PAGE = Path(__file__).with_name("homes.md")
PICTURE = RESULTS / "homes.png"
NAMES = {
    "local": "LocalIndex",
    "durable": "DurableIndex",
    "qdrant": "QdrantIndex, embedded",
    "postgresql": "PgVectorIndex",
    "milvus": "MilvusIndex, Lite",
}
# distinct in lightness as well as in hue, so that they differ in grey too
COLOURS = {
    "local": "#4c4c4c",
    "durable": "#0072b2",
    "qdrant": "#d55e00",
    "postgresql": "#009e73",
    "milvus": "#cc79a7",
}
MARKS = {"local": "o", "durable": "s", "qdrant": "^", "postgresql": "D", "milvus": "v"}
Run = dict[str, Any]


def write_page(held: dict[str, Any]) -> None:
    """Put the tables between their marks in ``homes.md``, and draw the picture."""
    tables = {"agree": agreement(held["agree"])}
    shapes = sorted({(run["documents"], run["colbert"]) for run in held["runs"]})
    tables["measured"] = "\n\n".join(measured(held["runs"], *shape) for shape in shapes)
    for name, table in tables.items():
        put_table(PAGE, name, table)
    draw([run for run in held["runs"] if "query_ms" in run])


def agreement(lines_of: dict[str, list[str]]) -> str:
    """Return a table of how often each home has LocalIndex's first ten.

    lines_of: by home, the hits of each question as ``number:score``.
    """
    hits = {home: [_hits(line) for line in found] for home, found in lines_of.items()}
    if "local" not in hits:
        return "Not measured yet."
    lines = [
        "| home | the same ten | in the same order | largest difference of a score |",
        "| --- | ---: | ---: | ---: |",
    ]
    exact = hits["local"]
    for home, found in hits.items():
        pairs = list(zip(exact, found, strict=True))
        ids = [([id for id, _ in one], [id for id, _ in other]) for one, other in pairs]
        same = sum(set(one) == set(other) for one, other in ids)
        order = sum(one == other for one, other in ids)
        off = max(
            abs(score - dict(other).get(id, score)) for one, other in pairs for id, score in one
        )
        lines.append(f"| {NAMES[home]} | {same} of {len(ids)} | {order} | {off:.0e} |")
    return "\n".join(lines)


def _hits(line: str) -> list[tuple[str, float]]:
    pairs = (one.partition(":") for one in line.split())
    return [(id, float(score)) for id, _, score in pairs]


def measured(runs: list[Run], documents: int, colbert: int) -> str:
    """Return the table of one number of documents."""
    with_colbert = f"{colbert} token vectors of 64" if colbert else "no token vectors"
    lines = [
        f"**{documents:,} documents, {with_colbert}**",
        "",
        "| home | load | build, s (CPU) | update, ms | open, s | query p50 / p99, ms (CPU) "
        "| filtered p50, ms | memory, MB | disk, MB | recall@10 |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    wanted = [run for run in runs if (run["documents"], run["colbert"]) == (documents, colbert)]
    for run in sorted(wanted, key=lambda one: list(NAMES).index(one["home"])):
        lines.append(_row(run))
    return "\n".join(lines)


def _row(run: Run) -> str:
    if "error" in run:
        return f"| {NAMES[run['home']]} | not reached: {run['error']} |" + " |" * 8
    name = NAMES[run["home"]]
    if run["reached"] < run["documents"]:
        name += f", stopped at {run['reached']:,}"
    build = run["build_s"] + run.get("optimize_s", 0)
    query, recall = run["query_ms"], run.get("recall_at_10")
    cells = [
        f"{run['load']:.0f}",
        f"{build:.1f}{_cpu(run['build_cpu_s'], digits=1)}",
        f"{run['update_ms']['p50']:.1f}",
        f"{run['open_s']:.2f}" if "open_s" in run else "–",
        f"{query['p50']:.0f} / {query['p99']:.0f}{_cpu(run['cpu_ms_a_query'])}",
        f"{run['filtered_ms']['p50']:.0f}",
        f"{run['memory_mb']:,}",
        f"{run['disk_mb']:,}",
        "–" if recall is None else f"{recall:.3f}",
    ]
    return f"| {name} | " + " | ".join(cells) + " |"


def _cpu(value: float | None, *, digits: int = 0) -> str:
    return "" if value is None else f" ({value:.{digits}f})"


def draw(runs: list[Run]) -> None:
    """Draw a query's processor time, the memory and the disk over the number of documents."""
    mpl.use("agg")
    from matplotlib import pyplot as plt

    panels = {
        "query, ms of CPU": lambda run: run["cpu_ms_a_query"],
        "memory, MB": lambda run: run["memory_mb"],
        "disk, MB": lambda run: run["disk_mb"],
    }
    figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.6), layout="constrained")
    for axis, (title, value) in zip(axes, panels.items(), strict=True):
        for home, name in NAMES.items():
            own = sorted(
                (run["reached"], value(run))
                for run in runs
                if run["home"] == home and run["colbert"] and value(run) is not None
            )
            if own:
                axis.plot(
                    *zip(*own, strict=True), color=COLOURS[home], marker=MARKS[home], label=name
                )
        axis.set(xscale="log", yscale="log", title=title, xlabel="documents")
        axis.grid(alpha=0.3, which="both", linewidth=0.5)
        axis.spines[["top", "right"]].set_visible(False)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, ncols=5, loc="outside lower center", frameon=False)
    figure.savefig(PICTURE, dpi=110, metadata={"Software": None})
    print(f"written: {PICTURE}")


def main() -> None:
    """Write the page from the results at hand."""
    import json

    write_page(json.loads((RESULTS / "homes.json").read_text("utf-8")))


if __name__ == "__main__":
    main()
