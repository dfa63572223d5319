"""``m3-retrievers doctor``: the facts and the checks as tables."""

from __future__ import annotations

from collections.abc import Mapping

from rich.markup import escape

from m3_retrievers.cli.checkup import checks, environment, is_bge_m3, model_facts
from m3_retrievers.cli.console import grid, results
from m3_retrievers.encoder.encoder import M3Encoder


def run(model: str) -> bool:
    """Print everything about an installation and a model; returns whether all checks passed."""
    console = results()
    console.print(_facts("Environment", environment()))
    encoder = M3Encoder.from_pretrained(model)
    console.print(_facts("Model", model_facts(encoder)))
    if not is_bge_m3(encoder):
        console.print(
            f"FlagEmbedding publishes figures for BAAI/bge-m3; {escape(model)} is another model, "
            "so its figures are shown with nothing to compare them to.",
            highlight=False,
        )
    table = grid("check", "expected", "measured", "", title="Arithmetic")
    found = checks(encoder)
    verdicts = {True: "[green]ok[/]", False: "[bold red]differs[/]", None: "–"}
    for check in found:
        table.add_row(check.name, check.expected, check.measured, verdicts[check.passed])
    console.print(table)
    return all(check.passed is not False for check in found)


def _facts(title: str, facts: Mapping[str, str]) -> object:
    table = grid("", "", title=title)
    table.show_header = False
    for name, value in facts.items():
        table.add_row(name, escape(value))
    return table
