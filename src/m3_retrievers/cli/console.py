"""Where output goes: results to stdout, bars and messages to stderr."""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from m3_retrievers.display.highlight import document_segments, excerpt, within
from m3_retrievers.encoder.encoder import M3Encoder
from m3_retrievers.errors import M3Warning
from m3_retrievers.explain.explanation import Explanation
from m3_retrievers.types.hits import Hit
from m3_retrievers.types.plan import Mode

# Rich takes 80 columns for what is no terminal; a table in a file may be wider.
_PIPED_WIDTH = 120

_TERMS_SHOWN = 5
# What a text could steer a terminal with; each becomes one visible character.
_CONTROLS = {code: "\ufffd" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


class Messages(Console):
    """A console whose ``escape`` is at hand where messages are built."""

    escape = staticmethod(escape)


def _width(stream: object) -> int | None:
    return None if getattr(stream, "isatty", lambda: False)() else _PIPED_WIDTH


messages = Messages(stderr=True, width=_width(sys.stderr))


def results() -> Console:
    """Return the console for what a command was asked for."""
    return Console(width=_width(sys.stdout))


def legs_for(encoder: M3Encoder) -> tuple[Mode, ...]:
    """Return the legs that suit a model, and say so where BM25 stands in."""
    if "sparse" in encoder.outputs:
        return ("dense", "sparse")
    messages.print(f"Lexical leg: BM25 ({encoder.name} has no sparse head).", style="dim")
    return ("dense", "bm25")


@contextmanager
def warnings_as_messages() -> Iterator[None]:
    """Show this package's warnings as one line each, at the end, instead of with a source line."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", M3Warning)
        yield
    ours = [one for one in caught if issubclass(one.category, M3Warning)]
    for other in caught:
        if other not in ours:
            warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)
    for category, count in Counter(one.category for one in ours).items():
        first = next(one for one in ours if one.category is category)
        again = f" (and {count - 1} more of this kind)" if count > 1 else ""
        messages.print(f"[yellow]Note:[/] {escape(str(first.message))}{again}", highlight=False)


def snippet(text: str, words: int = 24) -> str:
    """Return a text's first words on one line."""
    parts = text.split()
    return " ".join(parts[:words]) + (" …" if len(parts) > words else "")


def marked(explanation: Explanation, *, most: int = 600) -> Text:
    """Return where a hit comes from, its shared terms, and its text with what matched marked.

    Shared terms are bold, best matches of a query token underlined. most: characters of a
    long text to show, around the strongest matches.
    """
    whole, end = explanation.document.text, 0
    parts = document_segments(explanation)
    where = place(explanation.hit).translate(_CONTROLS)
    terms = _terms(explanation).translate(_CONTROLS)
    shown = Text.assemble((where, "bold cyan"), "  ", terms, "\n")
    for span in excerpt(whole, parts, most=most):
        if span[0] > end:
            shown.append(" … " if end else "… ", style="dim")
        for part in within(parts, span):
            style = "bold magenta " if part.lexical else ""
            style += "underline" if part.aligned else ""
            shown.append(whole[part.start : part.end].translate(_CONTROLS), style=style.strip())
        end = span[1]
    shown.append(" …" if end < len(whole) else "", style="dim")
    for note in explanation.notes:
        shown.append(f"\n{note}", style="dim")
    return shown


def _terms(explanation: Explanation) -> str:
    """Return the largest terms with what each adds to the lexical score."""
    told = [f"{one.term} {one.score:.3f}" for one in explanation.lexical_terms]
    more = f", … {len(told) - _TERMS_SHOWN} more" if len(told) > _TERMS_SHOWN else ""
    return (", ".join(told[:_TERMS_SHOWN]) + more) if told else "no shared term"


def place(hit: Hit) -> str:
    """Return where a hit comes from, as file:line, or its id."""
    source, line = hit.metadata.get("source"), hit.metadata.get("line")
    return f"{source}:{line}" if source else hit.id


def grid(*columns: str, title: str | None = None, numbers: Sequence[str] = ()) -> Table:
    """Return an empty table; the columns named in ``numbers`` are right-aligned and never cut."""
    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
    for name in columns:
        if name in numbers:
            table.add_column(name, justify="right", no_wrap=True)
        else:
            table.add_column(name, overflow="fold")
    return table
