"""``m3-retrievers evaluate``: a model on a test collection, or two saved results side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from m3_retrievers.cli.console import grid, messages, results
from m3_retrievers.encoder.encoder import M3Encoder
from m3_retrievers.errors import InputError
from m3_retrievers.evaluation.benchmark import evaluate, represent
from m3_retrievers.evaluation.datasets import Collection, read_collection
from m3_retrievers.evaluation.metrics import interval
from m3_retrievers.evaluation.modes import LABELS
from m3_retrievers.evaluation.protocol import ProtocolName
from m3_retrievers.evaluation.published import published
from m3_retrievers.evaluation.report import Evaluation, is_saved
from m3_retrievers.evaluation.significance import compare
from m3_retrievers.evaluation.tuning import Tuned, tune_weights
from m3_retrievers.types.plan import HybridWeights


def run(
    folder: Path,
    *,
    model: str,
    split: str,
    protocol: ProtocolName,
    modes: Sequence[str],
    measures: Sequence[str],
    max_length: int,
    weights: tuple[float, float, float] | None,
    tune: str | None,
    against: Path | None,
    out: Path | None,
) -> None:
    """Print a table of every mode; tune first and compare afterwards where asked to.

    A folder of saved results is shown, and compared, without a model.
    """
    if tune is not None and weights is not None:
        raise InputError("evaluate expects --weights or --tune, got both: leave one out.")
    if is_saved(folder):
        if tune is not None or weights is not None or modes or measures:
            raise InputError(
                f"{folder} holds results, which are shown as they are. Leave out --tune, --weights,"
                " --mode and --measure, or give the collection."
            )
        found = Evaluation.load(folder)
    else:
        found = _measured(
            M3Encoder.from_pretrained(model, document_max_length=max_length),
            folder,
            split=split,
            protocol=protocol,
            modes=modes or None,
            measures=measures or None,
            weights=HybridWeights(*weights) if weights else None,
            tune=tune,
        )
    _print(found)
    if out is not None:
        found.save(out)
        messages.print(f"Runs, results.json and table.md are in {out}.", highlight=False)
    if against is not None:
        _compare(Evaluation.load(against), found)


def _measured(
    encoder: M3Encoder,
    folder: Path,
    *,
    split: str,
    protocol: ProtocolName,
    modes: Sequence[str] | None,
    measures: Sequence[str] | None,
    weights: HybridWeights | None,
    tune: str | None,
) -> Evaluation:
    """Return the evaluation of a model on a folder's split, with tuned weights where asked to."""
    collection = read_collection(folder, split=split)
    vectors = None
    if tune is not None:
        tuning, collection = _sides(folder, tune, collection)
        vectors = represent(encoder, collection, show_progress=True)
        tuned = tune_weights(
            encoder, tuning, collection, representations=vectors, show_progress=True
        )
        weights = tuned.weights
        _print_tuned(tuned, tuning, collection)
    return evaluate(
        encoder,
        collection,
        protocol=protocol,
        modes=modes,
        weights=weights,
        measures=measures,
        representations=vectors,
        show_progress=True,
    )


def _sides(folder: Path, tune: str, collection: Collection) -> tuple[Collection, Collection]:
    """Return what is tuned on and what is reported on; one split serves in two halves."""
    if tune == collection.split:
        return collection.halves()
    return read_collection(folder, split=tune), collection


def _print_tuned(tuned: Tuned, tuning: Collection, report: Collection) -> None:
    w = tuned.weights
    results().print(
        f"Best of {tuned.tried} weights on {tuning.name}, {tuning.split}: "
        f"{w.dense:g} / {w.sparse:g} / {w.colbert:g} ({tuned.tuned:.4f}). On "
        f"{report.name}, {report.split}: {tuned.before:.4f} with the model's own, "
        f"{tuned.after:.4f} with these.",
        highlight=False,
    )


def _print(found: Evaluation) -> None:
    measures = list(next(iter(found.values.values())))
    beside = published(found.collection)
    columns = [*measures, *([f"BGE-M3 {beside.measure}"] if beside else [])]
    table = grid("mode", *columns, title=found.caption(), numbers=columns)
    for mode, values in found.values.items():
        cells = []
        for name in measures:
            low, high = interval(values[name])
            cells.append(f"{values[name].mean():.4f} ({low:.3f}–{high:.3f})")
        if beside:
            cells.append(beside.figures.get(mode, ""))
        table.add_row(LABELS[mode], *cells)
    results().print(table)
    if beside:
        results().print(beside.note(), style="dim", highlight=False)


def _compare(before: Evaluation, after: Evaluation) -> None:
    shared = [mode for mode in after.values if mode in before.values]
    measures = [
        name
        for name in next(iter(after.values.values()))
        if name in next(iter(before.values.values()))
    ]
    if not shared or not measures:
        raise InputError(
            f"--against expects results with a mode and a measure of this run, {list(after.values)}"
            f" and {list(next(iter(after.values.values())))}, got {before.caption()}"
        )
    numbers = ["before", "after", "difference", "p", "better", "worse"]
    table = grid("mode", *numbers, title=f"{measures[0]}, query by query", numbers=numbers)
    for mode in shared:
        one = compare(before, after, mode=mode, measure=measures[0])
        low, high = one.interval
        table.add_row(
            LABELS[mode],
            f"{before.mean(mode, measures[0]):.4f}",
            f"{after.mean(mode, measures[0]):.4f}",
            f"{one.difference:+.4f} ({low:+.3f} to {high:+.3f})",
            f"{one.p_value:.4f}",
            str(one.wins),
            str(one.losses),
        )
    results().print(table)
