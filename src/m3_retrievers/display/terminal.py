"""Hits and explanations for the terminal, and what keeps a text from steering it.

A document, its id and its metadata, a file's name and an error that quotes any of them are
other people's words. An escape sequence among them could clear the screen, set its title, hide
a link behind a text, or turn the order of letters around. So a console made here lets none of
them through, whatever is printed on it and however it was built.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook, RenderResult
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from m3_retrievers.display.highlight import document_segments, excerpt, within
from m3_retrievers.explain.explanation import Explanation
from m3_retrievers.types.hits import Hit
from m3_retrievers.types.plan import name_of

# Rich takes 80 columns for what is no terminal; a table in a file may be wider.
_PIPED_WIDTH = 120
# Columns of the screen that a text, a place and a term of a table take at most.
_TEXT_CELLS, _PLACE_CELLS, _TERM_CELLS = 200, 160, 40
_TERMS_SHOWN = 5

# Control characters but for line feed and tab, lone surrogates, line and paragraph separators,
# and what embeds, overrides or isolates a direction.
_STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029\u202a-\u202e\u2066-\u206f]"
)
# Marks without a width or an effect beyond their neighbours: left-to-right, right-to-left, Arabic.
_MARKS = re.compile("[\u200e\u200f\u061c]")


def visible(text: str) -> str:
    r"""Return a text with nothing in it that a terminal obeys; line feed and tab remain.

    What steers becomes U+FFFD, one for one; direction marks, which have no width, go.

    >>> visible("a\x1b[31mb") == "a\ufffd[31mb"
    True
    """
    return _MARKS.sub("", _STEERING.sub("\ufffd", text))


def shortened(text: str, cells: int) -> str:
    r"""Return a text's beginning on one line, at most ``cells`` columns wide, visible.

    >>> shortened("one\n two three", 9)
    'one two …'
    """
    # what has no width, such as a thousand accents on a letter, is bounded by characters
    start = text.lstrip()[: 4 * cells + 1]
    line = visible(" ".join(start.split()))
    if len(start) <= 4 * cells and cell_len(line) <= cells:
        return line
    width, kept = 1, ""
    for character in line:
        width += cell_len(character)
        if width > cells:
            break
        kept += character
    return f"{kept}…"


def console(*, stderr: bool = False) -> Console:
    """Return a console that prints texts as they are: no markup, no emoji codes, no escapes."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if getattr(stream, "isatty", lambda: False)() else _PIPED_WIDTH
    made = Console(stderr=stderr, width=width, markup=False, emoji=False, highlight=False)
    made.push_render_hook(_Visible())
    return made


class _Visible(RenderHook):
    """Cleans whatever a console is about to print, the styles left as they are."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Cleaned(one) for one in renderables]


class _Cleaned:
    def __init__(self, renderable: ConsoleRenderable) -> None:
        self._renderable = renderable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for part in console.render(self._renderable, options):
            yield part if part.control else Segment(visible(part.text), part.style)


def grid(*columns: str, title: str | None = None, numbers: Iterable[str] = ()) -> Table:
    """Return an empty table; the columns named in ``numbers`` are right-aligned and never cut."""
    heading = None if title is None else Text(visible(title))
    table = Table(title=heading, title_justify="left", title_style="bold", header_style="bold")
    for name in columns:
        if name in numbers:
            table.add_column(Text(visible(name)), justify="right", no_wrap=True)
        else:
            table.add_column(Text(visible(name)), overflow="fold")
    return table


def facts(title: str, shown: Mapping[str, str]) -> Table:
    """Return a table of names and values."""
    table = grid("", "", title=title)
    table.show_header = False
    for name, value in shown.items():
        table.add_row(Text(visible(name)), Text(visible(value)))
    return table


def hits_table(hits: Sequence[Hit], *, title: str | None = None) -> Table:
    """Return a table of hits: place, where they come from, each mode's own score, text."""
    modes = _modes(hits)
    table = _hit_grid(modes, "text", title=title)
    for number, hit in enumerate(hits, start=1):
        scores = [f"{hit.scores[mode]:.3f}" if mode in hit.scores else "–" for mode in modes]
        table.add_row(str(number), Text(place(hit)), *scores, Text(snippet(hit.text)))
    return table


def shares_table(hits: Sequence[Hit]) -> Table:
    """Return a table of each mode's rank among the candidates and its share of the score."""
    modes = _modes(hits)
    table = _hit_grid(modes, title="Rank, and share of the score")
    for number, hit in enumerate(hits, start=1):
        cells = []
        for mode in modes:
            share = hit.contributions.get(mode)
            part = "" if share is None else f"  {share:+.3f}"
            cells.append(f"{hit.ranks.get(mode, '–')}{part}")
        table.add_row(str(number), Text(place(hit)), *cells)
    return table


def _modes(hits: Sequence[Hit]) -> list[str]:
    """Return every mode that one of the hits was scored in."""
    return list(dict.fromkeys(mode for hit in hits for mode in hit.scores))


def _hit_grid(modes: Sequence[str], *more: str, title: str | None) -> Table:
    labels = [name_of(mode) for mode in modes]
    heading = None if title is None else shortened(title, _TEXT_CELLS)
    return grid("#", "where", *labels, *more, title=heading, numbers=("#", *labels))


def snippet(text: str, *, words: int = 24) -> str:
    """Return a text's first words on one line, at most 200 columns of them.

    >>> snippet("one two three", words=2)
    'one two …'
    """
    parts = text.lstrip()[: 4 * _TEXT_CELLS].split()
    if len(parts) > words:
        return f"{shortened(' '.join(parts[:words]), _TEXT_CELLS)} …"
    return shortened(text, _TEXT_CELLS)


def place(hit: Hit) -> str:
    """Return where a hit comes from, as file:line, or its id; of a long one the end."""
    source, line = hit.metadata.get("source"), hit.metadata.get("line")
    named = f"{source}:{line}" if source else hit.id
    # a path says most at its end
    end = named if len(named) <= _PLACE_CELLS // 2 else f"…{named[1 - _PLACE_CELLS // 2 :]}"
    return shortened(end, _PLACE_CELLS)


def marked(explanation: Explanation, *, most: int = 600) -> Text:
    """Return where a hit comes from, its shared terms, and its text with what matched marked.

    Shared terms are bold, best matches of a query token underlined. most: characters of a
    long text to show, around the strongest matches.
    """
    whole, end = explanation.document.text, 0
    parts = document_segments(explanation)
    shown = Text.assemble((place(explanation.hit), "bold cyan"), "  ", _terms(explanation), "\n")
    for span in excerpt(whole, parts, most=most):
        if span[0] > end:
            shown.append(" … " if end else "… ", style="dim")
        for part in within(parts, span):
            style = "bold magenta " if part.lexical else ""
            style += "underline" if part.aligned else ""
            shown.append(visible(whole[part.start : part.end]), style=style.strip())
        end = span[1]
    shown.append(" …" if end < len(whole) else "", style="dim")
    for note in explanation.notes:
        shown.append(f"\n{visible(note)}", style="dim")
    return shown


def _terms(explanation: Explanation) -> str:
    """Return the largest terms with what each adds to the lexical score."""
    terms = explanation.lexical_terms
    if not terms:
        return "no shared term"
    largest = [f"{shortened(t.term, _TERM_CELLS)} {t.score:.3f}" for t in terms[:_TERMS_SHOWN]]
    more = f", … {len(terms) - _TERMS_SHOWN} more" if len(terms) > _TERMS_SHOWN else ""
    return ", ".join(largest) + more
