"""What an evaluation found: kept whole, written as TREC runs, JSON and a table."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from m3_retrievers.checks import require_package
from m3_retrievers.errors import DatasetError
from m3_retrievers.evaluation.metrics import interval
from m3_retrievers.evaluation.modes import LABELS
from m3_retrievers.evaluation.published import published
from m3_retrievers.evaluation.trec import RankedRun, write_run
from m3_retrievers.types.plan import HybridWeights

if TYPE_CHECKING:
    from pandas import DataFrame

_RESULTS = "results.json"


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """One model on one split, by one protocol.

    versions: of the packages that shape the figures. settings: of the encoder and BM25, the
    depth kept and the measures. values: (q,) arrays by mode and measure, in the order of
    query_ids. runs: what each mode retrieved; empty where the record was read back from a file.
    """

    collection: str
    split: str
    documents: int
    model: str
    fingerprint: str
    versions: Mapping[str, str]
    settings: Mapping[str, Any]
    protocol: str
    weights: HybridWeights
    recall: int
    notes: tuple[str, ...]
    values: Mapping[str, Mapping[str, NDArray[np.float64]]]
    query_ids: tuple[str, ...]
    runs: Mapping[str, RankedRun] = field(default_factory=dict)

    def __repr__(self) -> str:
        modes = ", ".join(self.values)
        return (
            f"Evaluation({self.collection!r}, model={self.model!r}, "
            f"queries={len(self.query_ids)}, modes=[{modes}])"
        )

    def mean(self, mode: str, measure: str = "nDCG@10") -> float:
        """Return the mean of a measure over all queries."""
        return float(self.values[mode][measure].mean())

    def interval(self, mode: str, measure: str = "nDCG@10") -> tuple[float, float]:
        """Return the 95 % bootstrap confidence interval of ``mean``."""
        return interval(self.values[mode][measure])

    def to_pandas(self, *, per_query: bool = False) -> DataFrame:
        """Return a pandas DataFrame with a row for each mode and measure.

        Columns: mode, measure, mean, low and high, the ends of its 95 % bootstrap interval. With
        ``per_query`` a row a query too: mode, measure, query, value. Raises MissingExtraError
        without pandas.

        ``frame.pivot(index="mode", columns="measure", values="mean")`` sets modes against
        measures.
        """
        require_package("pandas", module="pandas", extra="pandas", purpose="to_pandas()")
        from pandas import DataFrame

        each = [(m, name, v) for m, found in self.values.items() for name, v in found.items()]
        if per_query:
            rows = [(m, n, *one) for m, n, v in each for one in zip(self.query_ids, v, strict=True)]
            return DataFrame(rows, columns=["mode", "measure", "query", "value"])
        means = [(m, name, float(v.mean()), *interval(v)) for m, name, v in each]
        return DataFrame(means, columns=["mode", "measure", "mean", "low", "high"])

    def _repr_markdown_(self) -> str:
        return self.table()

    def table(self) -> str:
        """Return the means with 95 % bootstrap intervals as Markdown, published figures beside."""
        measures = list(next(iter(self.values.values())))
        beside = published(self.collection)
        head = ["mode", *measures, *([f"BGE-M3, {beside.measure} (published)"] if beside else [])]
        notes = [self.caption(), *([beside.note()] if beside else [])]
        lines = [f"| {' | '.join(head)} |", f"| --- |{' ---: |' * (len(head) - 1)}"]
        for mode, found in self.values.items():
            cells = [LABELS[mode]]
            for name in measures:
                low, high = self.interval(mode, name)
                cells.append(f"{found[name].mean():.4f} ({low:.3f} to {high:.3f})")
            if beside:
                cells.append(beside.figures.get(mode, ""))
            lines.append(f"| {' | '.join(cells)} |")
        return "\n".join([*lines, "", *notes])

    def caption(self) -> str:
        """Return one sentence on what was run, and how."""
        w = self.weights
        notes = "".join(f"; {note}" for note in self.notes)
        return (
            f"{self.collection}, {self.split}: {len(self.query_ids)} queries, {self.documents} "
            f"documents; model {self.model}; protocol {self.protocol!r}, legs to depth "
            f"{self.recall}, weights {w.dense:g} / {w.sparse:g} / {w.colbert:g}{notes}."
        )

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write results.json, table.md and a TREC run a mode into a folder.

        ``trec`` says how a run keeps ties apart and ids whole; ``read_run`` reads it back.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for mode, run in self.runs.items():
            write_run(folder / f"{mode}.trec", run, tag=mode)
        (folder / _RESULTS).write_text(json.dumps(self.to_dict(), indent=1) + "\n", "utf-8")
        (folder / "table.md").write_text(self.table() + "\n", "utf-8")

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the runs, as JSON."""
        content = {name: getattr(self, name) for name in _PLAIN}
        content["weights"] = asdict(self.weights)
        content["means"] = {
            mode: {name: float(values.mean()) for name, values in found.items()}
            for mode, found in self.values.items()
        }
        content["intervals"] = {
            mode: {name: self.interval(mode, name) for name in found}
            for mode, found in self.values.items()
        }
        # unrounded: a run read back and the same run at hand must tie on every query
        content["values"] = {
            mode: {name: values.tolist() for name, values in found.items()}
            for mode, found in self.values.items()
        }
        return content

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Evaluation:
        """Return the evaluation saved in a folder, without its runs."""
        path = Path(folder) / _RESULTS
        try:
            content = json.loads(path.read_text("utf-8"))
            values = {
                mode: {name: np.asarray(one, float) for name, one in found.items()}
                for mode, found in content["values"].items()
            }
            plain = {name: content[name] for name in _PLAIN}
            weights = HybridWeights(**content["weights"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DatasetError(
                f"{path} is expected to hold results of an evaluation ({error!r}). Give the "
                "folder that Evaluation.save wrote."
            ) from error
        plain |= {name: tuple(plain[name]) for name in ("notes", "query_ids")}
        return cls(**plain, weights=weights, values=values)


def is_saved(folder: Path) -> bool:
    """Return whether a folder holds what ``Evaluation.save`` writes."""
    return (folder / _RESULTS).is_file()


_PLAIN = (
    "collection",
    "split",
    "documents",
    "model",
    "fingerprint",
    "versions",
    "settings",
    "protocol",
    "recall",
    "notes",
    "query_ids",
)
