"""Training lines: what is read, what is written, and what each wrong line is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3_retrievers.errors import InputError, TrainingDataError
from m3_retrievers.training import Example, read_examples, write_examples

numbers = st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@st.composite
def examples(draw: Any) -> Example:
    positives = tuple(draw(st.lists(texts, min_size=1, max_size=3)))
    negatives = tuple(draw(st.lists(texts, max_size=3)))
    scored = draw(st.booleans())
    return Example(
        query=draw(texts),
        positives=positives,
        negatives=negatives,
        positive_scores=tuple(draw(numbers) for _ in positives) if scored else None,
        negative_scores=tuple(draw(numbers) for _ in negatives) if scored else None,
        source="lines",
    )


# --- reading --------------------------------------------------------------------------------


def test_a_line_becomes_an_example(tmp_path: Path) -> None:
    line = {
        "query": "Who closed the bridge?",
        "pos": ["The mayor.", "The mayor did."],
        "neg": ["The river rose."],
        "pos_scores": [0.9, 1],
        "neg_scores": [-2.5],
        "type": "normal",
    }
    assert _read(tmp_path, json.dumps(line)) == [
        Example(
            query="Who closed the bridge?",
            positives=("The mayor.", "The mayor did."),
            negatives=("The river rose.",),
            positive_scores=(0.9, 1.0),
            negative_scores=(-2.5,),
            source="lines",
        )
    ]


@pytest.mark.parametrize("rest", ["", ', "neg": []', ', "neg": null', ', "neg_scores": null'])
def test_negatives_and_scores_may_be_missing(tmp_path: Path, rest: str) -> None:
    (one,) = _read(tmp_path, f'{{"query": "a", "pos": ["b"]{rest}}}')
    assert one == Example(query="a", positives=("b",), source="lines")
    assert one.negatives == ()
    assert one.positive_scores is None
    assert one.negative_scores is None


def test_a_prompt_stands_before_the_query(tmp_path: Path) -> None:
    (one,) = _read(tmp_path, '{"query": "bridge", "pos": ["b"], "prompt": "Find: "}')
    assert one.query == "Find: bridge"


def test_empty_lines_are_passed_over(tmp_path: Path) -> None:
    lines = '\n{"query": "a", "pos": ["b"]}\n   \n\n{"query": "c", "pos": ["d"]}'
    assert [one.query for one in _read(tmp_path, lines)] == ["a", "c"]
    assert _read(tmp_path, "") == []


def test_a_folder_is_read_in_name_order_and_each_file_is_a_source(tmp_path: Path) -> None:
    for name, query in [("b.jsonl", "second"), ("a.jsonl", "first"), ("c.txt", "no line at all")]:
        (tmp_path / name).write_text(json.dumps({"query": query, "pos": ["p"]}))
    read = [(one.query, one.source) for one in read_examples(tmp_path)]
    assert read == [("first", "a"), ("second", "b")]
    named = [one.source for one in read_examples(tmp_path, source="mine")]
    assert named == ["mine", "mine"]


# --- writing --------------------------------------------------------------------------------


@given(one=st.lists(examples(), max_size=4))
def test_what_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, one: list[Example]
) -> None:
    path = tmp_path_factory.mktemp("written") / "lines.jsonl"
    assert write_examples(path, one) == len(one)
    assert read_examples(path) == one


def test_lines_are_written_as_flag_embedding_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    scored = Example("q", ("p",), ("n", "Brücke"), (2.0,), (0.5, -1.0))
    write_examples(path, [Example("图书", ("p",)), scored])
    assert path.read_text("utf-8").splitlines() == [
        '{"query": "图书", "pos": ["p"], "neg": []}',
        '{"query": "q", "pos": ["p"], "neg": ["n", "Brücke"], '
        '"pos_scores": [2.0], "neg_scores": [0.5, -1.0]}',
    ]


# --- wrong lines ----------------------------------------------------------------------------

GOOD = '{"query": "a", "pos": ["b"]}\n'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"query": "a", ', "is expected to hold JSON: "),
        ('["a", "b"]', r"expects an object with a 'query' string, got \[\"a\", \"b\"\]"),
        ('{"pos": ["b"]}', "expects an object with a 'query' string, got"),
        ('{"query": 7, "pos": ["b"]}', "expects an object with a 'query' string, got"),
        ('{"query": "a", "positive": ["b"]}', r"unknown keys \['positive'\]; known are \['neg'"),
        ('{"query": "a", "pos": "b"}', "expects 'pos' to be a list of strings, got 'b'"),
        ('{"query": "a", "pos": ["b", 3]}', r"expects 'pos' to be a list of strings, got \['b', 3"),
        ('{"query": "a", "pos": ["b"], "neg": {"c": 1}}', "expects 'neg' to be a list of strings"),
        ('{"query": "a", "pos": ["b"], "pos_scores": 1}', "'pos_scores' to be a list of numbers"),
        ('{"query": "a", "pos": ["b"], "pos_scores": ["1"]}', "a list of numbers, got .'1'"),
        ('{"query": "a", "pos": ["b"], "neg_scores": [true]}', "'neg_scores' to be a list of numb"),
        ('{"query": "a", "pos": ["b"], "pos_scores": [NaN]}', "a list of numbers, got .nan"),
        ('{"query": "a", "pos": ["b"], "prompt": 5}', "expects 'prompt' to be a string, got 5"),
        ('{"query": "a"}', "at least one positive passage, got none for the query 'a'"),
        ('{"query": "a", "pos": []}', "at least one positive passage, got none for the query 'a'"),
        (
            '{"query": "a", "pos": ["b", "c"], "pos_scores": [1]}',
            r"pos_scores expects one score a passage \(2\), got 1 for the query 'a'",
        ),
        (
            '{"query": "a", "pos": ["b"], "neg_scores": [1]}',
            r"neg_scores expects one score a passage \(0\), got 1 for the query 'a'",
        ),
    ],
)
def test_a_wrong_line_is_named_with_its_place(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(TrainingDataError, match=message) as caught:
        _read(tmp_path, GOOD + line)
    assert str(caught.value).startswith(f"{tmp_path / 'lines.jsonl'}:2")
    assert str(caught.value).count("lines.jsonl:2") == 1


def test_a_long_value_is_shortened(tmp_path: Path) -> None:
    line = json.dumps({"query": "a", "pos": "long " * 1000})
    with pytest.raises(TrainingDataError) as caught:
        _read(tmp_path, line)
    assert len(str(caught.value)) < len(str(tmp_path)) + 200


def test_a_file_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    (tmp_path / "lines.jsonl").write_bytes('{"query": "Brücke", "pos": ["b"]}'.encode("latin-1"))
    with pytest.raises(TrainingDataError, match=r"lines\.jsonl is expected to be UTF-8"):
        read_examples(tmp_path)


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path: Path) -> None:
    (one,) = _read(tmp_path, '\ufeff{"query": "a", "pos": ["b"]}')
    assert one.query == "a"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingDataError, match=r"nowhere\.jsonl is expected to be a \.jsonl file"):
        read_examples(tmp_path / "nowhere.jsonl")


def test_an_example_made_by_hand_is_checked_too() -> None:
    with pytest.raises(TrainingDataError, match="at least one positive passage"):
        Example("a", ())
    with pytest.raises(TrainingDataError, match="Score every passage"):
        Example("a", ("b",), ("c", "d"), negative_scores=(1.0,))


def test_it_is_a_value_error_for_those_who_do_not_know_this_package(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        _read(tmp_path, "no json")
    assert issubclass(TrainingDataError, InputError)


def _read(folder: Path, lines: str) -> list[Example]:
    path = folder / "lines.jsonl"
    path.write_text(lines, "utf-8")
    return read_examples(path)
