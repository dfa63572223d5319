"""The contract over EngineIndex: its definitions alone, over an engine that could not be simpler.

The engine is a dictionary that several handles share. What it does is what the abstract
methods ask for and no more, so whoever writes an index may start from here.
"""

import copy
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from m3_retrievers import scoring
from m3_retrievers.checks import check_k
from m3_retrievers.errors import DuplicateIdError, IndexUnavailableError
from m3_retrievers.index.base import PersistentIndex
from m3_retrievers.index.engine import EngineIndex
from m3_retrievers.index.filters import compile_filter
from m3_retrievers.index.incoming import widths_of
from m3_retrievers.testing import IndexContract
from m3_retrievers.types.hits import Ranking, Record
from m3_retrievers.types.representations import Representations

pytestmark = pytest.mark.slow


class DictIndex(EngineIndex):
    def __init__(self, engine):
        self.place = "a dictionary"
        self._engine = engine
        self._closed = False

    @property
    def _rows(self):
        if self._closed or self._engine.gone:
            raise IndexUnavailableError("expected an open index, got one that was closed.")
        return self._engine.rows

    def snapshot(self):
        return self._engine.lock

    def __len__(self):
        return len(self._rows)

    def _known(self, ids):
        wanted = set(ids)
        with self._engine.lock:
            return [id for id in self._rows if id in wanted]

    def _put(self, records, representations, *, replace):
        with self._engine.lock:
            known = [record.id for record in records if record.id in self._rows]
            if known and not replace:
                raise DuplicateIdError(f"add expects new ids, got {known[0]!r:.80}.")
            self._engine.widths |= widths_of(representations, self.stored)
            for at, record in enumerate(records):
                self._rows.pop(record.id, None)  # so that it comes last
                self._rows[record.id] = record, copy.deepcopy(representations[at])

    def _remove(self, ids):
        with self._engine.lock:
            for id in ids:
                self._rows.pop(id, None)

    def _get(self, ids):
        with self._engine.lock:
            found = {id: self._rows[id][0] for id in ids if id in self._rows}
        return {id: Record(id, r.text, copy.deepcopy(r.metadata)) for id, r in found.items()}

    def _vectors(self, ids, outputs):
        with self._engine.lock:
            return Representations.concatenate([self._rows[id][1].select(outputs) for id in ids])

    def _recall(self, query, mode, *, k, filter, ids):
        admits, named = compile_filter(filter), None if ids is None else set(ids)
        with self._engine.lock:
            rows = {
                id: made
                for id, (record, made) in self._rows.items()
                if admits(record.metadata) and (named is None or id in named)
            }
        if not rows:
            return Ranking((), np.zeros(0, np.float32))
        every = Representations.concatenate([made.select([mode]) for made in rows.values()])
        scores = scoring.by_mode(mode, query.representations, every)[0]
        order = np.argsort(-scores, kind="stable")
        order = order[scores[order] > 0] if mode == "sparse" else order
        return Ranking(tuple(np.array(list(rows), object)[order[:k]]), scores[order[:k]])

    def _widths(self):
        assert self._rows is not None
        return self._engine.widths

    def _read_note(self):
        assert self._rows is not None
        return copy.deepcopy(self._engine.note)

    def _write_note(self, note):
        self._engine.note = copy.deepcopy(dict(note))

    def where(self, filter):
        admits = compile_filter(filter)
        with self._engine.lock:
            return [id for id, (record, _) in self._rows.items() if admits(record.metadata)]

    def pages(self, *, filter=None, size=1000):
        check_k(size, name="size")
        ids = self.where(filter)
        return (self.get(ids[at : at + size]) for at in range(0, len(ids), size))

    def close(self):
        self._closed = True


class TestDictIndex(IndexContract):
    tolerance = 1e-6

    @pytest.fixture
    def engine(self):
        return SimpleNamespace(rows={}, widths={}, note={}, lock=threading.RLock(), gone=False)

    @pytest.fixture
    def index(self, engine):
        return DictIndex(engine)

    @pytest.fixture
    def reopen(self, engine):
        return lambda: DictIndex(engine)

    @pytest.fixture
    def unreachable(self, index, engine):
        engine.gone = True
        return index

    def test_it_is_persistent_so_no_case_is_passed_over(self, index):
        assert isinstance(index, PersistentIndex)
