"""CONTRIBUTING.md: the walks of a document and of a question go where it says, in that order."""

import re
import sys
from pathlib import Path

import pytest

import m3_retrievers
import readme
from m3_retrievers import HybridRetriever, M3Encoder

TEXT = (readme.PATH.parent / "CONTRIBUTING.md").read_text("utf-8")
ROOT = Path(m3_retrievers.__file__).parent
WALKS = [
    [(readme.spans(row[1])[0], readme.spans(row[0])[0]) for row in table]
    for table in readme.tables(TEXT)
    if table[0][0].startswith("`HybridRetriever")
]


def walked(work):
    """Return the functions of this package that some work calls, in order of their first call."""
    found = {}

    def note(frame, event, _):
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(ROOT):
            found.setdefault((path.relative_to(ROOT).as_posix(), frame.f_code.co_qualname))

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
    return list(found)


@pytest.fixture(scope="module")
def retriever(tiny_m3):
    retriever = HybridRetriever(M3Encoder.from_pretrained(tiny_m3))
    retriever.add(["The river rose.", "A librarian reads."])
    return retriever


def test_a_document_takes_the_walk_that_is_written_down(retriever):
    stops = walked(lambda: retriever.add(["The bridge was closed."]))
    assert [stop for stop in stops if stop in WALKS[0]] == WALKS[0]


def test_a_question_takes_the_walk_that_is_written_down(retriever):
    stops = walked(lambda: retriever.search("river"))
    assert [stop for stop in stops if stop in WALKS[1]] == WALKS[1]


def test_the_files_and_rooms_it_names_are_there():
    for name in re.findall(r"`([\w/]+\.(?:py|pyi|md|txt))`", TEXT):
        places = [ROOT / name, readme.PATH.parent / name, *ROOT.glob(f"*/{name}")]
        assert any(place.exists() for place in places), name
