"""Passages of a bounded number of tokens, whatever the text is."""

import re
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3_retrievers.corpora.blocks import Block, parsed, prose_blocks, python_blocks
from m3_retrievers.corpora.passages import read_passages
from m3_retrievers.corpora.splitting import Splitter, words
from m3_retrievers.errors import InputError

# Letters, marks, controls, all that some standard takes for a line end, and much white space.
ODD = st.text(
    st.one_of(
        st.sampled_from("ab# =-\n\n\n \t\r\x0b\x0c\x1c\x85\u2028。é😀\u0301\u200b\x00"),
        st.characters(),
    ),
    max_size=300,
)


def letters(text: str) -> list[tuple[int, int]]:
    """Return a token for each visible character, as a tokenizer does where words have no end."""
    return [found.span() for found in re.finditer(r"\S", text)]


def bare(text: str) -> str:
    return "".join(text.split())


@settings(deadline=None)
@given(
    text=ODD,
    size=st.integers(1, 40),
    spans=st.sampled_from([words, letters]),
    ending=st.sampled_from(["txt", "py"]),
)
def test_no_text_is_lost_and_no_passage_is_too_long(text, size, spans, ending):
    passages = read_passages(text, source=f"a.{ending}", splitter=Splitter(spans=spans, size=size))
    assert "".join(bare(one.text) for one in passages) == bare(text)
    assert all(1 <= len(spans(one.text)) <= size for one in passages)
    assert [one.id for one in passages] == [f"a.{ending}#{n + 1}" for n in range(len(passages))]


@settings(deadline=None)
@given(text=ODD, size=st.integers(1, 40), ending=st.sampled_from(["txt", "py"]))
def test_a_passage_says_on_which_line_it_begins(text, size, ending):
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    passages = read_passages(text, source=f"a.{ending}", splitter=Splitter(size=size))
    for passage in passages:
        first = passage.text.split("\n")[0].rstrip()
        assert first.strip() in lines[passage.metadata["line"] - 1]
    found = [passage.metadata["line"] for passage in passages]
    assert found == sorted(found)


@settings(deadline=None)
@given(text=ODD, size=st.integers(2, 40), data=st.data())
def test_an_overlap_repeats_and_never_exceeds_the_size(text, size, data):
    overlap = data.draw(st.integers(0, size // 2))
    splitter = Splitter(spans=letters, size=size, overlap=overlap)
    passages = read_passages(text, source="a.txt", splitter=splitter)
    assert all(len(letters(one.text)) <= size for one in passages)
    assert set(bare(text)) == {character for one in passages for character in bare(one.text)}


def test_an_overlap_begins_with_the_words_before():
    text = " ".join(f"word{number}" for number in range(100))
    first, second, *_ = read_passages(text, source="a.txt", splitter=Splitter(size=40, overlap=10))
    assert first.text.split()[-10:] == second.text.split()[:10]


def test_sections_do_not_overlap():
    text = "# One\n\nfirst words here\n\n# Two\n\nsecond words here"
    found = read_passages(text, source="a.md", splitter=Splitter(size=40, overlap=10))
    assert [one.text.split("\n")[0] for one in found] == ["# One", "# Two"]


@pytest.mark.parametrize(("size", "overlap"), [(0, 0), (10, -1), (10, 6)])
def test_a_size_that_leaves_no_room_is_refused(size, overlap):
    with pytest.raises(InputError, match=r"expects|expected"):
        Splitter(size=size, overlap=overlap)


def test_lines_are_kept_whole_where_they_fit():
    text = "def f():\n" + "\n".join(f"    value_{n} = {n}" for n in range(40))
    found = read_passages(text, source="a.py", splitter=Splitter(size=30))
    assert "\n".join(one.text for one in found) == text
    assert all(one.text.startswith("    ") for one in found[1:])


def test_a_language_without_spaces_is_cut_after_its_punctuation():
    sentence = "我们去图书馆。"
    found = read_passages(sentence * 20, source="a.txt", splitter=Splitter(spans=letters, size=16))
    assert len(found) > 5
    assert all(one.text.endswith("。") for one in found)


def test_a_text_that_has_more_tokens_by_itself_is_cut_again():
    def grudging(text: str) -> list[tuple[int, int]]:
        """Take as many tokens again for the start of a short text, as some tokenizers do."""
        found = words(text)
        return found * 2 if len(found) < 12 else found

    text = " ".join(["word"] * 200)
    found = read_passages(text, source="a.txt", splitter=Splitter(spans=grudging, size=10))
    assert all(len(grudging(one.text)) <= 10 for one in found)
    assert sum(len(one.text.split()) for one in found) == 200


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("x" * 1_000_000, id="one word"),
        pytest.param("a" + "\u200b" * 200_000 + "b", id="nothing to see"),
        pytest.param("a" + " " * 1_000_000 + "b", id="spaces"),
    ],
)
def test_what_has_hardly_a_token_makes_no_endless_passage(text):
    found = read_passages(text, source="a.txt")
    assert max(len(one.text) for one in found) <= 200 * 100
    assert "".join(bare(one.text) for one in found) == bare(text)


# With a quadratic step each of these takes minutes, and the time limit of a test ends it.
@pytest.mark.parametrize("ending", ["txt", "py"])
@pytest.mark.parametrize(
    "text",
    [
        pytest.param("def f():\n  x = 1\n" + "\n" * 100_000 + "  return 2\n", id="blank lines"),
        pytest.param("word " * 200_000, id="one line"),
        pytest.param("# " + "word " * 200_000, id="one heading"),
        pytest.param("a\r\n\r\n" * 40_000, id="paragraphs"),
    ],
)
def test_a_large_file_takes_linear_time(text, ending):
    found = read_passages(text, source=f"a.{ending}")
    assert "".join(bare(one.text) for one in found) == bare(text)
    assert max(len(one.metadata["title"]) for one in found) <= 200


def test_texts_are_tokenized_a_little_at_a_time():
    asked = []

    def spans(text: str) -> list[tuple[int, int]]:
        asked.append(len(text))
        return words(text)

    read_passages("word " * 20_000, source="a.txt", splitter=Splitter(spans=spans))
    assert max(asked) < 10_000


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("-" * 200_000 + "1", id="signs"),
        pytest.param("a" + ".b" * 200_000, id="attributes"),
        pytest.param("lambda:" * 20_000 + "1", id="lambdas"),
        pytest.param("(" * 20_000, id="brackets"),
        pytest.param("x = \x01", id="controls"),
    ],
)
def test_code_that_python_cannot_read_is_read_as_prose(code):
    assert parsed(code) is None
    assert python_blocks(code) == prose_blocks(code)


def test_data_that_ends_in_py_is_not_made_a_tree(monkeypatch):
    monkeypatch.setattr("m3_retrievers.corpora.blocks.parsed", pytest.fail)
    code = "DATA = [\n" + "1234567,\n" * 250_000 + "]\n"
    assert python_blocks(code) == prose_blocks(code)


def test_the_warnings_of_somebodys_code_are_not_ours():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        [block] = python_blocks('def f():\n    return "\\d", 1 is 1\n')
    assert block.title == "f"


def test_a_form_feed_ends_no_line_of_python():
    [first, second] = python_blocks("a = 1\n\x0c\ndef f():\n    pass")
    assert (first.title, second.title) == ("", "f")
    [_, passage] = read_passages("a = 1\n\x0c\ndef f():\n    pass", source="a.py")
    assert passage.metadata["line"] == 3


def test_blank_lines_within_a_passage_become_one():
    [passage] = read_passages("# T\n\n\n \n\nText.", source="a.md")
    assert passage.text == "# T\n\nText."
    assert Splitter().split("", [Block(0, 0, "")]) == []
