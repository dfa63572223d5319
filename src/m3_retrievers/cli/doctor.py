"""``m3-retrievers doctor``: the facts and the checks as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from rich.console import Console
from rich.text import Text

from m3_retrievers.cli.checkup import (
    Check,
    checks,
    environment,
    installation,
    is_bge_m3,
    model_facts,
)
from m3_retrievers.cli.console import results, write_json
from m3_retrievers.cli.speed import Comparison, compare
from m3_retrievers.display.terminal import facts, grid, visible
from m3_retrievers.encoder.encoder import M3Encoder

_VERDICTS = {True: ("ok", "green"), False: ("differs", "bold red"), None: ("–", "")}


def run(model: str, *, as_json: bool, speed: bool = False) -> bool:
    """Print everything about an installation and a model; returns whether all checks passed.

    speed: measure each precision as well.
    """
    console = results()
    if not as_json:
        # first of all, so that it is there to be quoted where the model cannot be loaded
        console.print(facts("Environment", environment()))
    installed = installation()
    # a check compares what is computed twice: nothing may come from what was kept
    encoder = M3Encoder.from_pretrained(model, keep=None)
    about, measured = model_facts(encoder), checks(encoder)
    compared = compare(encoder) if speed else None
    passed = all(check.passed is not False for check in (*installed, *measured))
    if as_json:
        every = [asdict(check) for check in (*installed, *measured)]
        found: Mapping[str, object] = {
            "environment": environment(),
            "model": about,
            "checks": every,
            "passed": passed,
        }
        if compared is not None:
            found = {**found, "speed": compared.to_dict()}
        write_json(found)
        return passed
    console.print(facts("Model", about))
    if not is_bge_m3(encoder):
        console.print(
            f"FlagEmbedding publishes figures for BAAI/bge-m3; {model} is another model, so its "
            "figures are shown with nothing to compare them to."
        )
    _print(console, "Installation", installed)
    _print(console, "Arithmetic", measured)
    if compared is not None:
        _print_speed(console, compared)
    return passed


def _print_speed(console: Console, compared: Comparison) -> None:
    numbers = ["one query", "texts a second", "smallest cosine", "other first term"]
    table = grid("precision", *numbers, title="Speed", numbers=numbers)
    for one in compared.speeds:
        table.add_row(
            one.precision,
            f"{one.query_ms:.1f} ms",
            f"{one.texts_a_second:.1f}",
            "–" if one.cosine is None else f"{one.cosine:.5f}",
            "–" if one.terms is None else f"{one.terms:.0%}",
        )
    console.print(table)
    console.print(f"precision='auto' is {compared.auto!r} here: {compared.why}.")


def _print(console: Console, title: str, found: Sequence[Check]) -> None:
    table = grid("check", "expected", "measured", "", title=title)
    for check in found:
        cells = [visible(cell) for cell in (check.name, check.expected, check.measured)]
        table.add_row(*cells, Text(*_VERDICTS[check.passed]))
    console.print(table)
