"""An index moved from one home to another: what comes along, what is refused, what goes on."""

import numpy as np
import pytest

from m3_retrievers.errors import (
    IndexModelError,
    IndexUnavailableError,
    InputError,
    MissingOutputError,
    SavedIndexError,
)
from m3_retrievers.index import LocalIndex, MilvusIndex, copy
from m3_retrievers.testing import samples
from m3_retrievers.testing.agreement import same_records
from m3_retrievers.types.plan import Plan

COUNT = 25
MODEL = {"name": "a model", "fingerprint": "f"}


@pytest.fixture
def source():
    index = LocalIndex()
    index.add(samples.records(COUNT), samples.represent(COUNT))
    return index


@pytest.fixture
def milvus(tmp_path):
    return str(tmp_path / "m.db")


def same(one, other):
    same_records(one.get(one.where(None)), other.get(other.where(None)))
    kept, its = (index.vectors(index.where(None)) for index in (one, other))
    assert np.array_equal(kept.dense, its.dense)
    assert (kept.sparse != its.sparse).nnz == 0
    assert np.array_equal(
        kept.colbert.vectors.astype(np.float16), its.colbert.vectors.astype(np.float16)
    )
    query = samples.question()
    hits = [index.search(query, Plan(), k=5).hits for index in (one, other)]
    assert [hit.id for hit in hits[0]] == [hit.id for hit in hits[1]]


def test_there_and_back_all_is_as_it_was(source, milvus, tmp_path):
    source.save(tmp_path / "saved", model=MODEL, extra={"legs": ["dense"]})
    assert copy(tmp_path / "saved", f"milvus:{milvus}", batch_size=7) == COUNT
    back = LocalIndex()
    assert copy(f"milvus:{milvus}", back) == COUNT
    same(source, back)
    assert back.extra == {"legs": ["dense"]}
    kept = MilvusIndex(milvus)
    assert kept.note() == {"model": MODEL, "extra": {"legs": ["dense"]}}
    same(source, kept)
    kept.close()


def test_an_interrupted_copy_goes_on(source, milvus, monkeypatch):
    target = MilvusIndex(milvus)
    add, made = target.add, []

    def fails_at_the_third(records, representations):
        made.append(len(records))
        if len(made) == 3:
            raise IndexUnavailableError("the engine is gone")
        add(records, representations)

    monkeypatch.setattr(target, "add", fails_at_the_third)
    with pytest.raises(IndexUnavailableError):
        copy(source, target, batch_size=5)
    assert len(target) == 10
    monkeypatch.undo()
    assert copy(source, target, batch_size=5) == COUNT - 10
    same(source, target)
    assert copy(source, target) == 0
    target.close()


def test_a_target_with_other_documents_is_left_as_it_is(source):
    other = LocalIndex()
    other.add(samples.records(3, first=COUNT), samples.represent(3))
    with pytest.raises(InputError, match=f"got one with 'd{COUNT}'"):
        copy(source, other)
    assert len(other) == 3
    changed = LocalIndex()
    changed.add([*samples.records(1, first=0)], samples.represent(1))
    record = samples.records(2)[1]
    changed.add([type(record)("d01", "another text")], samples.represent(1))
    with pytest.raises(InputError, match="'d01'"):
        copy(source, changed)
    assert len(changed) == 2


def test_a_target_of_another_model_is_refused(source, milvus, tmp_path):
    source.save(tmp_path / "saved", model=MODEL)
    target = MilvusIndex(milvus)
    target.bind({"name": "another", "fingerprint": "g"})
    with pytest.raises(IndexModelError, match="another"):
        copy(tmp_path / "saved", target)
    assert len(target) == 0
    target.close()


def test_a_target_keeps_less_but_never_more_than_its_source(source):
    less = LocalIndex(modes=["sparse"])
    assert copy(source, less) == COUNT
    assert less.where(None) == source.where(None)
    with pytest.raises(MissingOutputError, match="dense"):
        copy(less, LocalIndex())


def test_addresses_that_cannot_be_copied_from_or_to(source, tmp_path):
    source.save(tmp_path / "saved")
    with pytest.raises(SavedIndexError, match="got nothing there"):
        copy(tmp_path / "nothing.m3", LocalIndex())
    with pytest.raises(InputError, match="a folder that save wrote"):
        copy(source, tmp_path / "saved")
    with pytest.raises(InputError, match="batch_size"):
        copy(source, LocalIndex(), batch_size=0)
