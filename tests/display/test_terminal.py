"""What a terminal shows of other people's words, and what it never gets to obey."""

import io
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.text import Text

from m3_retrievers import Hit, HybridRetriever, M3Encoder
from m3_retrievers.display.terminal import (
    console,
    facts,
    grid,
    hits_table,
    marked,
    place,
    shares_table,
    shortened,
    snippet,
    visible,
)
from m3_retrievers.explain import explain

ATTACKS = {
    "clears the screen": "\x1b[2J\x1b[H",
    "sets the title": "\x1b]0;owned\x07",
    "hides a link": "\x1b]8;;http://example.org\x1b\\click\x1b]8;;\x1b\\",
    "one byte for two": "\x9b31m\x9d0;owned\x9c",
    "goes back": "good\rbad\b\b",
    "turns letters around": "\u202egpj.exe\u2066\u2067\u2068\u2069\u202a\u202b\u202c\u202d",
    "marks a direction": "\u200e\u200f\u061c",
    "breaks lines": "a\u2028b\u2029c\x0b\x0c",
    "cannot be written": "\ud800\udcff",
    "is markup": "[red]a[/red] [link=http://example.org]b[/link] :smile: \\",
}


def steers(shown: str) -> set[str]:
    """Return the characters of an output that are of a category which is not drawn."""
    kinds = {one: (unicodedata.category(one), unicodedata.bidirectional(one)) for one in shown}
    return {
        one
        for one, (kind, direction) in kinds.items()
        if (kind in ("Cc", "Cs", "Zl", "Zp") and one not in "\n\t")
        or direction in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
        or one in "\u061c\u200e\u200f"
    }


def printed(*shown: object) -> str:
    terminal = console()
    terminal.file = io.StringIO()
    terminal.print(*shown)
    return terminal.file.getvalue()


@settings(deadline=None)
@given(st.text(max_size=200))
def test_nothing_that_steers_is_visible(text):
    assert not steers(visible(text))
    assert not steers(printed(text, Text(text)))


@settings(deadline=None)
@given(st.text(max_size=200), st.integers(2, 60))
def test_a_shortened_text_is_one_line_of_so_many_columns(text, cells):
    line = shortened(text, cells)
    assert cell_len(line) <= cells
    assert "\n" not in line
    assert len(line) <= 4 * cells + 1
    assert not steers(line)


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_no_part_of_a_hit_reaches_the_terminal_as_a_command(attack):
    hit = Hit(
        id=f"id {attack}",
        text=f"text {attack}",
        score=1.0,
        metadata={"source": f"file {attack}.md", "line": f"1{attack}"},
        scores={f"mode{attack}": 1.0},
        ranks={f"mode{attack}": 1},
        contributions={f"mode{attack}": 1.0},
    )
    nameless = Hit(id=f"id {attack}", text="", score=0.0)
    output = printed(
        hits_table([hit, nameless], title=f"question {attack}"),
        shares_table([hit]),
        facts(f"facts {attack}", {f"name {attack}": f"value {attack}"}),
        grid(f"column {attack}", title=attack),
        attack,
    )
    assert not steers(output)
    assert "http" not in attack or "http://example.org" in output  # shown, and not followed
    if attack.startswith("[red]"):
        assert "[red]a[/red]" in output
        assert ":smile:" in output


@pytest.mark.filterwarnings("ignore::m3_retrievers.errors.UnknownTokenWarning")
@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_no_part_of_an_explanation_reaches_the_terminal_as_a_command(attack, tiny_m3):
    retriever = HybridRetriever(M3Encoder.from_pretrained(tiny_m3, device="cpu"))
    text = f"a page {attack} that matters"
    retriever.add([text], ids=[attack], metadata=[{"source": f"{attack}.md"}])
    [hit] = retriever.search(f"page {attack}", k=1)
    output = printed(marked(explain(f"page {attack}", hit, retriever=retriever)))
    assert not steers(output)
    assert "page" in output


def test_styles_of_our_own_remain(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert printed(Text("ok\x1b[0m", "bold")) == "\x1b[1mok\ufffd[0m\x1b[0m\n"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("x" * 1_000_000, id="one word"),
        pytest.param("図" * 1_000_000, id="wide letters"),
        pytest.param("e" + "\u0301" * 1_000_000, id="accents"),
        pytest.param(" " * 1_000_000 + "x" * 1_000, id="spaces first"),
        pytest.param(("x" * 500 + " ") * 2_000, id="long words"),
    ],
)
def test_a_snippet_has_an_end(text):
    shown = snippet(text)
    assert shown.endswith("…")
    assert cell_len(shown) <= 202
    assert len(shown) <= 1_000


def test_a_short_text_is_shown_whole():
    assert snippet("one\n\n two") == "one two"
    assert snippet("a b c", words=2) == "a b …"
    assert snippet("") == ""


def test_a_place_shows_the_end_of_a_long_path_on_one_line():
    hit = Hit("id", "", 0.0, {"source": "folder/" * 100 + "file\n.md", "line": 7})
    assert place(hit).startswith("…")
    assert place(hit).endswith("file .md:7")
    assert place(Hit("an id", "", 0.0)) == "an id"
    assert place(Hit("x" * 5_000, "", 0.0)) == "…" + "x" * 79
