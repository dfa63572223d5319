"""Where output goes: results to stdout, bars and messages to stderr."""

from __future__ import annotations

import json
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.text import Text

from m3_retrievers.display.terminal import console, visible
from m3_retrievers.display.terminal import grid as grid
from m3_retrievers.encoder.encoder import M3Encoder
from m3_retrievers.errors import M3Warning
from m3_retrievers.types.plan import Mode

messages = console(stderr=True)


def results() -> Console:
    """Return the console for what a command was asked for."""
    return console()


def write_json(value: object) -> None:
    """Write a result for programs: ASCII, so that no character of a text steers a terminal."""
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")


def say(kind: str, message: str, *, style: str) -> None:
    """Print one message, its kind in front."""
    line = Text.assemble((f"{kind}: ", style), visible(message))
    messages.print(line, soft_wrap=True)


def legs_for(encoder: M3Encoder) -> tuple[Mode, ...]:
    """Return the legs that suit a model, and say so where BM25 stands in."""
    if "sparse" in encoder.outputs:
        return ("dense", "sparse")
    messages.print(f"Lexical leg: BM25 ({encoder.name} has no sparse head).", style="dim")
    return ("dense", "bm25")


@contextmanager
def warnings_as_messages() -> Iterator[None]:
    """Show this package's warnings as one line each, at the end, instead of with a source line."""
    caught: Sequence[warnings.WarningMessage] = ()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", M3Warning)
            yield
    finally:
        _show(caught)


def _show(caught: Sequence[warnings.WarningMessage]) -> None:
    ours = [one for one in caught if issubclass(one.category, M3Warning)]
    for category, count in Counter(one.category for one in ours).items():
        first = next(one for one in ours if one.category is category)
        again = f" (and {count - 1} more of this kind)" if count > 1 else ""
        say("Note", f"{first.message}{again}", style="yellow")
    for other in caught:
        if other not in ours:
            warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)
