"""The index of one process: in memory, exact, updatable, saved to a folder."""

from __future__ import annotations

import copy
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse as sp

from m3_retrievers.errors import (
    DuplicateIdError,
    InputError,
    MissingOutputError,
    SavedIndexError,
)
from m3_retrievers.index.base import Filter, TermWeighting
from m3_retrievers.index.dense import DenseIndex, GrowingRows
from m3_retrievers.index.filters import compile_filter
from m3_retrievers.index.inverted import InvertedIndex
from m3_retrievers.index.multivector import ColbertDtype, MultiVectorIndex
from m3_retrievers.index.storage import read_generation, write_generation
from m3_retrievers.index.weighted import WeightedIndex, csr_arrays, csr_of
from m3_retrievers.packed import Floats, MultiVectors
from m3_retrievers.records import check_ids
from m3_retrievers.representations import Mode, Output, Query, Ranking, Record, Representations

STORED: tuple[Output, ...] = ("dense", "sparse", "colbert")

# Deleted rows stay until there are this many and they outnumber the live ones, so that a
# delete costs nothing and memory stays below twice what the documents need.
_DEAD_ROWS_KEPT = 1_000
_MASKS_KEPT = 16


class LocalIndex:
    """Records with dense, sparse and ColBERT representations, and BM25 where it is wanted.

    modes: what is stored, of ``"dense"``, ``"sparse"``, ``"colbert"``. weighting: adds the mode
        of its name (``"bm25"``) over the records' texts. colbert_dtype: ``"float16"`` halves
        the memory and moves a score by less than 1e-3; ``"float32"`` keeps every bit.

    Safe to share between threads. Metadata is kept as JSON keeps it (a tuple comes back as a
    list), and comes out as a copy.
    """

    def __init__(
        self,
        *,
        modes: Sequence[Output] = STORED,
        weighting: TermWeighting | None = None,
        colbert_dtype: ColbertDtype = "float16",
    ) -> None:
        unknown = [mode for mode in modes if mode not in STORED]
        if isinstance(modes, str) or unknown:
            raise InputError(f"modes expects a list of some of {STORED}, got {modes!r}.")
        self._stored: tuple[Output, ...] = tuple(mode for mode in STORED if mode in modes)
        self._lock = threading.RLock()
        self._records: list[Record] = []
        self._row_of: dict[str, int] = {}
        self._alive = GrowingRows(np.empty(0, bool))
        self._masks: OrderedDict[str, NDArray[np.bool_]] = OrderedDict()
        self._dense = DenseIndex()
        self._sparse = InvertedIndex()
        self._colbert = MultiVectorIndex(dtype=colbert_dtype)
        self._weighted = None if weighting is None else WeightedIndex(weighting)
        self._widths: dict[str, int] = {}
        self.extra: dict[str, Any] = {}

    def __len__(self) -> int:
        return len(self._row_of)

    def __contains__(self, id: object) -> bool:
        return id in self._row_of

    def __repr__(self) -> str:
        return f"LocalIndex(documents={len(self)}, modes={sorted(self.modes)})"

    @property
    def modes(self) -> frozenset[Mode]:
        """The modes it scores."""
        named = () if self._weighted is None else (self._weighted.weighting.name,)
        return frozenset((*self._stored, *named))

    @property
    def weighting(self) -> TermWeighting | None:
        """The term weights that depend on the collection, such as BM25's."""
        return None if self._weighted is None else self._weighted.weighting

    @property
    def colbert_dtype(self) -> ColbertDtype:
        """The precision of the stored token vectors."""
        return self._colbert.dtype

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids, in order of insertion."""
        with self._lock:
            return tuple(self._records[row].id for row in self._live())

    # Records in and out

    def add(self, records: Sequence[Record], representations: Representations) -> None:
        """Insert new records; raises before anything is stored.

        representations: one row a record, with every output this index stores. Raises
        DuplicateIdError for an id given twice or known, MissingOutputError for an output that
        is not there, InputError for counts or widths that do not fit and metadata that is not
        JSON.
        """
        with self._lock:
            for record in records:
                if record.id in self._row_of:
                    raise DuplicateIdError(
                        f"add expects new ids, got {record.id!r}, which is in the index. "
                        "Use upsert to replace it, or another id."
                    )
            self._insert(records, representations)

    def upsert(self, records: Sequence[Record], representations: Representations) -> None:
        """Insert records, replacing those whose id is known; they move to the end."""
        with self._lock:
            self._insert(records, representations)

    def delete(self, ids: Sequence[str]) -> list[str]:
        """Remove records; returns the ids that were there."""
        check_ids(ids, name="delete")
        with self._lock:
            there = [id for id in dict.fromkeys(ids) if id in self._row_of]
            with self._changing():
                self._bury(there)
            return there

    def get(self, ids: Sequence[str]) -> list[Record]:
        """Return copies of the records in the order asked for, passing over unknown ids."""
        check_ids(ids, name="get")
        with self._lock:
            found = [self._records[self._row_of[id]] for id in ids if id in self._row_of]
        return [Record(r.id, r.text, copy.deepcopy(dict(r.metadata))) for r in found]

    def vectors(
        self, ids: Sequence[str], *, outputs: Sequence[Output] | None = None
    ) -> Representations:
        """Return the stored representations of the given records, a row an id, in that order.

        outputs: those wanted, None for all that are stored; ColBERT's come in the dtype they
        are kept in. Raises InputError for an unknown id, MissingOutputError for an output that
        is not stored.
        """
        check_ids(ids, name="vectors")
        wanted = self._stored if outputs is None else outputs
        for name in wanted:
            if name not in self._stored:
                raise MissingOutputError(
                    f"This index stores {self._stored}, got {name!r}. Build it with that mode."
                )
        with self._lock:
            rows = self._rows(ids)
            return Representations(
                dense=self._dense.rows[rows] if "dense" in wanted else None,
                sparse=self._sparse.take(rows) if "sparse" in wanted else None,
                colbert=self._colbert.packed.take(rows) if "colbert" in wanted else None,
            )

    def in_order(self, ids: Sequence[str]) -> list[str]:
        """Return the ids that are known, each once, in order of insertion."""
        check_ids(ids, name="in_order")
        with self._lock:
            rows = {self._row_of[id]: id for id in ids if id in self._row_of}
            return [rows[row] for row in sorted(rows)]

    # Recall and scores

    def recall(
        self, query: Query, mode: Mode, *, k: int | None, filter: Filter | None = None
    ) -> Ranking:
        """Return the k best records of one mode among those the filter admits.

        k: None ranks all of them. Lexical modes leave out records that share no term.
        """
        if k is not None and (isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1):
            raise InputError(f"k expects an integer of at least 1, or None for all, got {k!r}.")
        self._check_asked(query, mode)
        with self._lock:
            admitted = self._admitted(filter)
            rows, scores = self._search(query, mode, k, admitted)
            return Ranking(tuple(self._records[row].id for row in rows), scores)

    def score(self, query: Query, mode: Mode, ids: Sequence[str]) -> Floats:
        """Return (n,) scores of the given records; InputError for an unknown id."""
        check_ids(ids, name="score")
        self._check_asked(query, mode)
        with self._lock:
            return self._score(query, mode, self._rows(ids))

    def scale(self, query: Query, mode: Mode) -> float:
        """Return the factor from a mode's score to the hybrid's range; 1 for M3's modes."""
        self._check_mode(mode)
        if mode in STORED or self._weighted is None:
            return 1.0
        with self._lock:
            return self._weighted.scale(query.text, alive=self._alive.rows)

    # On disk

    def save(
        self,
        folder: str | Path,
        *,
        model: Mapping[str, Any] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """Write the live records to a folder; see ``index.storage`` for how it is kept safe.

        model: ``{"name", "fingerprint"}`` of the model that made the representations. extra: JSON
        of the caller's, handed back as ``LocalIndex.extra``.
        """
        with self._lock:
            live = self._live()
            arrays: dict[str, NDArray[Any]] = {}
            if "dense" in self._stored:
                arrays["dense.vectors"] = self._dense.rows[live]
            if "sparse" in self._stored:
                matrix = self._sparse.take(live)
                arrays |= csr_arrays("sparse", sp.csr_array(matrix.astype(np.float32)))
            if "colbert" in self._stored:
                vectors = self._colbert.take(live)
                arrays |= {"colbert.vectors": vectors.vectors, "colbert.offsets": vectors.offsets}
            if self._weighted is not None:
                arrays |= self._weighted.arrays(live)
            write_generation(
                folder,
                arrays=arrays,
                documents=[self._records[row] for row in live],
                settings={
                    "modes": list(self._stored),
                    "colbert_dtype": self._colbert.dtype,
                    "weighting": self._weighted and self._weighted.weighting.state(),
                    "extra": dict(self.extra if extra is None else extra),
                },
                model=model,
            )

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        model: Mapping[str, Any] | None = None,
        weighting: Callable[[Mapping[str, Any]], TermWeighting] | None = None,
    ) -> LocalIndex:
        """Return the index saved in a folder; every recall and score is as it was.

        model: the model in use; another than the saved one is an IndexModelError. weighting:
        makes the saved weighting again from its state (``BM25.from_state``).
        """
        saved = read_generation(folder, model=model)
        settings, arrays = saved.settings, saved.arrays
        if settings["weighting"] is not None and weighting is None:
            raise SavedIndexError(
                f"The index in {str(folder)!r} has a {settings['weighting'].get('name', 'BM25')} "
                "leg: load it with weighting=BM25.from_state, or through HybridRetriever.load."
            )
        made = weighting(settings["weighting"]) if settings["weighting"] and weighting else None
        index = cls(modes=settings["modes"], colbert_dtype=settings["colbert_dtype"])
        index._records = saved.records
        index._row_of = {record.id: row for row, record in enumerate(saved.records)}
        index._alive = GrowingRows(np.ones(len(saved.records), bool))
        index.extra = settings["extra"]
        if not saved.records:
            index._weighted = None if made is None else WeightedIndex(made)
            return index
        if "dense" in index._stored:
            index._dense = DenseIndex(arrays["dense.vectors"])
            index._widths["dense"] = arrays["dense.vectors"].shape[1]
        if "sparse" in index._stored:
            matrix = csr_of("sparse", arrays)
            index._sparse = InvertedIndex.from_matrix(matrix)
            index._widths["sparse"] = matrix.shape[1]
        if "colbert" in index._stored:
            vectors = MultiVectors(arrays["colbert.vectors"], arrays["colbert.offsets"])
            index._colbert = MultiVectorIndex(vectors, dtype=settings["colbert_dtype"])
            index._widths["colbert"] = vectors.dimension
        if made is not None:
            index._weighted = WeightedIndex(made, csr_of("bm25", arrays))
        return index

    # Inside; every caller holds the lock

    def _insert(self, records: Sequence[Record], representations: Representations) -> None:
        kept = [_checked(record) for record in records]
        ids = [record.id for record in kept]
        twice = len(set(ids)) != len(ids)
        if twice:
            repeated = next(id for at, id in enumerate(ids) if id in ids[:at])
            raise DuplicateIdError(f"expected each id once in a call, got {repeated!r} twice.")
        widths = self._check_fit(len(kept), representations)
        if not kept:
            return
        first = len(self._records)
        with self._changing():
            if "dense" in self._stored:
                self._dense.append(representations.require("dense"))
            if "sparse" in self._stored:
                self._sparse.append(representations.require("sparse"))
            if "colbert" in self._stored:
                self._colbert.append(representations.require("colbert"))
            if self._weighted is not None:
                texts = [record.text for record in kept]
                self._weighted.append(self._weighted.weighting.count(texts))
            self._widths |= widths
            self._records += kept
            self._alive.append(np.ones(len(kept), bool))
            self._bury([id for id in ids if id in self._row_of])
            self._row_of.update((id, first + at) for at, id in enumerate(ids))

    def _check_fit(self, count: int, representations: Representations) -> dict[str, int]:
        """Return the width of each stored output; raises if one is missing or does not fit."""
        if not count:
            return {}
        widths: dict[str, int] = {}
        for name in self._stored:
            value = representations.require(name)
            width = value.dimension if name == "colbert" else value.shape[1]
            held = self._widths.get(name, width)
            if width != held:
                raise InputError(
                    f"This index holds {name} representations of width {held}, got {width}. "
                    "Encode with the model and settings it was built with."
                )
            widths[name] = int(width)
            numbers = {"sparse": "data", "colbert": "vectors"}.get(name)
            if not np.all(np.isfinite(getattr(value, numbers) if numbers else value)):
                raise InputError(
                    f"expected finite {name} representations, got NaN or infinity among them. "
                    "Check the model's weights and dtype."
                )
        if self._stored and len(representations) != count:
            raise InputError(
                f"expected a row of representations for each of {count} records, got "
                f"{len(representations)}."
            )
        return widths

    def _bury(self, ids: Sequence[str]) -> None:
        rows = np.array([self._row_of.pop(id) for id in ids], np.int64)
        self._alive.rows[rows] = False
        if "sparse" in self._stored:
            self._sparse.delete(rows)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Keep every leg in step with the records, also after an error or a Ctrl-C in between.

        A change extends the legs before the records, so dropping what no live record owns
        leaves the index as it was before, or with the whole change.
        """
        done = False
        try:
            yield
            done = True
        finally:
            self._masks.clear()
            dead = len(self._records) - len(self)
            if not done or dead > max(_DEAD_ROWS_KEPT, len(self)):
                self._compact()

    def _compact(self) -> None:
        """Build everything again from the live rows, in their order."""
        # of two live rows with one id, left by an upsert cut short, the later one counts
        rows = {self._records[row].id: row for row in self._live()}
        live = np.array(sorted(rows.values()), np.int64)
        self._records = [self._records[row] for row in live]
        self._row_of = {record.id: row for row, record in enumerate(self._records)}
        self._alive = GrowingRows(np.ones(len(live), bool))
        # an index of no rows takes any width
        if "dense" in self._stored:
            self._dense = DenseIndex(self._dense.rows[live] if len(live) else None)
        if "sparse" in self._stored:
            self._sparse = InvertedIndex.from_matrix(self._sparse.take(live))
        if "colbert" in self._stored:
            kept = self._colbert.take(live) if len(live) else None
            self._colbert = MultiVectorIndex(kept, dtype=self._colbert.dtype)
        if self._weighted is not None:
            counts = sp.csr_array(self._weighted.counts[live])
            self._weighted = WeightedIndex(self._weighted.weighting, counts)

    def _rows(self, ids: Sequence[str]) -> NDArray[np.int64]:
        unknown = [id for id in ids if id not in self._row_of]
        if unknown:
            raise InputError(f"expected ids of the index, got {unknown[0]!r}.")
        return np.array([self._row_of[id] for id in ids], np.int64)

    def _live(self) -> NDArray[np.int64]:
        return np.flatnonzero(self._alive.rows)

    def _admitted(self, filter: Filter | None) -> NDArray[np.bool_] | None:
        """Return the rows that may be found, (n,); None for all of them."""
        test = compile_filter(filter)
        if not filter:
            return None if len(self) == len(self._records) else self._alive.rows
        key = _key(filter)
        mask = None if key is None else self._masks.get(key)
        if mask is None:
            alive = self._alive.rows.tolist()
            passed = (
                is_alive and test(record.metadata)
                for is_alive, record in zip(alive, self._records, strict=True)
            )
            mask = np.fromiter(passed, bool, len(alive))
        if key is not None:
            self._masks[key] = mask
            self._masks.move_to_end(key)
            if len(self._masks) > _MASKS_KEPT:
                self._masks.popitem(last=False)
        return mask

    def _search(
        self, query: Query, mode: Mode, k: int | None, admitted: NDArray[np.bool_] | None
    ) -> tuple[NDArray[np.int64], Floats]:
        asked = query.representations
        if mode == "dense":
            vector = asked.require("dense")[0]
            return self._dense.search(vector, k=k, admitted=admitted)
        if mode == "sparse":
            return self._sparse.search(asked.require("sparse"), k=k, admitted=admitted)
        if mode == "colbert":
            return self._colbert.search(asked.require("colbert"), k=k, admitted=admitted)
        assert self._weighted is not None  # _check_mode saw to it
        return self._weighted.search(query.text, k=k, alive=self._alive.rows, admitted=admitted)

    def _score(self, query: Query, mode: Mode, rows: NDArray[np.int64]) -> Floats:
        asked = query.representations
        if mode == "dense":
            return self._dense.score(asked.require("dense")[0], rows)
        if mode == "sparse":
            return self._sparse.score(asked.require("sparse"), rows)
        if mode == "colbert":
            return self._colbert.score(asked.require("colbert"), rows)
        assert self._weighted is not None  # _check_mode saw to it
        return self._weighted.score(query.text, rows, alive=self._alive.rows)

    def _check_asked(self, query: Query, mode: Mode) -> None:
        self._check_mode(mode)
        if mode in STORED and len(query.representations) > 1:
            raise InputError(
                f"A query expects the representations of one text, got "
                f"{len(query.representations)}: pass one query a call."
            )

    def _check_mode(self, mode: Mode) -> None:
        if mode not in self.modes:
            raise MissingOutputError(
                f"This index scores {sorted(self.modes)}, got {mode!r}. Build it with that mode."
            )


def _checked(record: Record) -> Record:
    """Return a record of our own, its metadata as JSON keeps it."""
    if not isinstance(record.id, str) or not isinstance(record.text, str):
        raise InputError(
            f"expected records with a string id and text, got id {record.id!r:.60} and text "
            f"{record.text!r:.60}."
        )
    kept = {}
    for key, value in record.metadata.items():
        try:
            kept[key] = json.loads(json.dumps(value))
        except (TypeError, ValueError) as error:
            raise InputError(
                f"metadata expects JSON values, got {value!r:.60} under {key!r} of document "
                f"{record.id!r} ({error}). Turn it into a string or a number first."
            ) from error
        if not isinstance(key, str):
            raise InputError(
                f"metadata expects string keys, got {key!r:.60} in document {record.id!r}."
            )
    return Record(record.id, record.text, kept)


def _key(filter: Filter) -> str | None:
    """Return a name for a filter's mask; None for a filter that cannot be written down."""
    try:
        return json.dumps(filter, sort_keys=True)
    except (TypeError, ValueError):
        return None
