"""Lists of hits as data frames."""

import math

import pytest

from m3_retrievers import Hit, checks
from m3_retrievers.errors import MissingExtraError
from m3_retrievers.types.hits import Hits

HITS = Hits(
    [
        Hit(
            "a",
            "x",
            1.5,
            {"lang": "en", "score": 7, "tags": ["b", "c"]},
            {"dense": 0.5, "hybrid": 1.5},
            {"dense": 2, "hybrid": 1},
            {"dense": 1.5},
        ),
        Hit("b", "y", 1.0, {"year": 2020}, {"sparse": 0.25, "hybrid": 1.0}, {"sparse": 1}),
    ]
)


def test_a_frame_has_a_row_a_hit_and_a_column_for_all_it_holds():
    frame = HITS.to_pandas()
    assert list(frame.columns) == [
        "id",
        "score",
        "text",
        "score.dense",
        "score.hybrid",
        "score.sparse",
        "rank.dense",
        "rank.hybrid",
        "rank.sparse",
        "share.dense",
        "metadata.lang",
        "metadata.score",
        "metadata.tags",
        "metadata.year",
    ]
    assert frame.index.name == "place"
    assert list(frame.index) == [1, 2]
    assert list(frame["id"]) == ["a", "b"]
    assert list(frame["score"]) == [1.5, 1.0]
    assert frame.loc[1, "metadata.tags"] == ["b", "c"]
    assert frame.loc[1, "rank.dense"] == 2


def test_what_a_hit_lacks_is_missing_and_ranks_stay_whole_numbers():
    frame = HITS.to_pandas()
    assert math.isnan(frame.loc[2, "score.dense"])
    assert math.isnan(frame.loc[2, "share.dense"])
    assert str(frame["rank.dense"].dtype) == "Int64"
    assert frame["rank.dense"].isna().tolist() == [False, True]


def test_parts_and_empty_lists_are_frames_too():
    assert list(HITS[1:].to_pandas()["id"]) == ["b"]
    empty = Hits().to_pandas()
    assert len(empty) == 0
    assert list(empty.columns) == ["id", "score", "text"]


def test_many_keys_make_no_warning():
    hits = Hits([Hit(f"{n}", "", 0.0, {f"k{n}-{m}": m for m in range(50)}) for n in range(5)])
    assert hits.to_pandas().shape == (5, 253)


def test_without_pandas_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setattr(checks, "find_spec", lambda module: None)
    with pytest.raises(MissingExtraError, match=r"pip install \"m3-retrievers\[pandas\]\""):
        HITS.to_pandas()
