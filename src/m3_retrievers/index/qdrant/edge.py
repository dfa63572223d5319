"""A collection in a folder of this machine, through qdrant-edge: no server."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from m3_retrievers.checks import require_package
from m3_retrievers.errors import IndexLockedError, IndexUnavailableError, SavedIndexError
from m3_retrievers.index.locking import ForkSafeLock
from m3_retrievers.index.qdrant.edge_shapes import condition, config, point_of, request
from m3_retrievers.index.qdrant.requests import (
    Clause,
    Found,
    Layout,
    Nearest,
    Point,
    WeightedSum,
    found,
)
from m3_retrievers.index.snapshot.files import disk_errors, sync

_NOTE = "m3_retrievers.json"
# what the engine raises of its own: the bare class, with a text; or, where a file of it makes no
# sense to it, what its language's bindings raise for a panic
_ENGINE_ERRORS = ("builtins.Exception", "pyo3_runtime.PanicException")


class EdgeEngine:
    """A shard of Qdrant's in ``folder/collection``, with its note as a JSON file.

    One process at a time has it open: IndexLockedError for a second one. What a call wrote is
    on the disk when it returns.
    """

    remote = False

    def __init__(self, folder: Path, collection: str) -> None:
        require_package(
            "qdrant-edge-py", module="qdrant_edge", extra="qdrant", purpose="QdrantIndex(folder)"
        )
        self._folder = folder / collection
        # keeps the note for as long as there is no shard
        self._waiting = folder / f"{collection}.json"
        self.place = str(self._folder)
        self._closed = False
        self._opening = ForkSafeLock()  # the engine takes two threads for two processes
        self._shard: Any = None
        self._open()

    def _open(self) -> Any:
        """Return the shard; None where there is none yet."""
        import qdrant_edge as qe

        if self._closed:
            raise IndexUnavailableError(
                f"The index in {self.place!r} was closed. Open it again: QdrantIndex(folder)."
            )
        if self._shard is None:
            with self._opening, _Refusals(self.place):
                if self._shard is None and self._folder.exists():
                    self._shard = qe.EdgeShard.load(str(self._folder))
        return self._shard

    # The collection

    def read_note(self) -> dict[str, Any]:
        """Return the JSON kept beside the points; {} where there is none."""
        if self._open() is None:
            return _read(self._waiting) if self._waiting.exists() else {}
        path = self._folder / _NOTE
        return _read(path) if path.exists() else {"foreign": True}

    def write_note(self, note: Mapping[str, Any]) -> None:
        """Keep JSON beside the points, whole or not at all."""
        _write(self._waiting if self._open() is None else self._folder / _NOTE, note)

    def create(self, layout: Layout, note: Mapping[str, Any]) -> None:
        """Make the shard and its indices elsewhere, and move it into place when it is whole."""
        import qdrant_edge as qe

        fresh = self._folder.with_name(f"{self._folder.name}.new-{secrets.token_hex(8)}")
        with disk_errors("saving", fresh):
            fresh.mkdir(parents=True)
        with _Refusals(self.place):
            shard = qe.EdgeShard.create(str(fresh), config(layout))
            for field, schema in (
                ("n", qe.PayloadSchemaType.Integer),
                ("facts", qe.PayloadSchemaType.Keyword),
            ):
                shard.update(qe.UpdateOperation.create_field_index(field, schema))
            shard.flush()
            shard.close()
        _write(fresh / _NOTE, note)
        try:
            fresh.rename(self._folder)
        except OSError:  # another process was faster; opening says what it holds
            shutil.rmtree(fresh)  # of a name that nobody else has
        else:
            self._waiting.unlink(missing_ok=True)
            sync(self._folder.parent)
        self._open()

    def index_numbers(self, key: str) -> None:
        """Index the numbers under a key of the payload."""
        import qdrant_edge as qe

        self._update(qe.UpdateOperation.create_field_index(key, qe.PayloadSchemaType.Float))

    def optimize(self) -> None:
        """Merge segments and build indices; returns when it is done."""
        shard = self._open()
        if shard is not None:
            with _Refusals(self.place):
                shard.optimize()
                shard.flush()

    def close(self) -> None:
        """Give the folder free."""
        with self._opening:
            self._closed = True
            shard, self._shard = self._shard, None
        if shard is not None:
            with _Refusals(self.place):
                shard.close()

    # Points in and out

    def count(self) -> int:
        """Return the number of points."""
        import qdrant_edge as qe

        shard = self._open()
        if shard is None:
            return 0
        with _Refusals(self.place):
            return int(shard.count(qe.CountRequest(exact=True)))

    def upsert(self, points: Sequence[Point], *, only_new: bool) -> None:
        """Write points; they are on the disk when this returns."""
        import qdrant_edge as qe

        mode = qe.UpdateMode.InsertOnly if only_new else qe.UpdateMode.Upsert
        made = list(map(point_of, points))
        self._update(qe.UpdateOperation.upsert_points(made, update_mode=mode))

    def delete(self, clause: Clause) -> None:
        """Remove the points under a condition; they are gone from the disk on return."""
        import qdrant_edge as qe

        self._update(qe.UpdateOperation.delete_points_by_filter(condition(clause)))

    def _update(self, operation: Any) -> None:
        shard = self._open()
        with _Refusals(self.place):
            shard.update(operation)
            shard.flush()

    def retrieve(
        self, ids: Sequence[str], *, payload: tuple[str, ...] | None, vectors: Sequence[str] = ()
    ) -> dict[str, Found]:
        """Return the points that are there, by id."""
        shard = self._open()
        if shard is None:
            return {}
        fields = True if payload is None else list(payload)
        with _Refusals(self.place):
            records = shard.retrieve(list(ids), fields, list(vectors) or False)
        return {str(record.id): found(record) for record in records}

    def scroll(
        self, clause: Clause, *, limit: int, payload: tuple[str, ...], newest: bool = False
    ) -> list[Found]:
        """Return the first or the newest points under a condition, in order of insertion."""
        import qdrant_edge as qe

        shard = self._open()
        if shard is None:
            return []
        asked = qe.ScrollRequest(
            limit=limit,
            filter=condition(clause),
            with_payload=list(payload),
            with_vector=False,
            order_by=qe.OrderBy("n", qe.Direction.Desc if newest else qe.Direction.Asc),
        )
        with _Refusals(self.place):
            records, _ = shard.scroll(asked)
        return [found(record) for record in records]

    def query(self, searches: Sequence[Nearest | WeightedSum]) -> list[list[Found]]:
        """Return what each search finds, planned together."""
        import qdrant_edge as qe

        shard = self._open()
        if shard is None:
            return [[] for _ in searches]
        batch = qe.QueryBatchRequest([request(search) for search in searches])
        with _Refusals(self.place):
            answers = shard.query_batch(batch)
        return [[found(point) for point in points] for points in answers]


def _read(path: Path) -> dict[str, Any]:
    with disk_errors("loading", path.parent):
        text = path.read_text("utf-8")
    try:
        note: dict[str, Any] = json.loads(text)
    except ValueError as error:
        raise SavedIndexError(
            f"{str(path)!r} expects the JSON that QdrantIndex wrote, got {text!r:.60}. "
            "Restore it from a backup, or index the documents again into another folder."
        ) from error
    return note


def _write(path: Path, note: Mapping[str, Any]) -> None:
    """Write a note, whole or not at all."""
    fresh = path.with_name(f"{path.name}.new")
    with disk_errors("saving", path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(json.dumps(note), "utf-8")
        sync(fresh)
        fresh.replace(path)
        sync(path.parent)


class _Refusals:
    """What the engine refuses, as this package's errors."""

    def __init__(self, place: str) -> None:
        self._place = place

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None or f"{kind.__module__}.{kind.__name__}" not in _ENGINE_ERRORS:
            return
        reason = str(error)
        if "WouldBlock" in reason or "already contains segment data" in reason:
            raise IndexLockedError(
                f"{self._place!r} expects one process at a time, got a second one: another has it "
                "open. Close it there, or share it through a Qdrant server and its URL."
            ) from error
        raise IndexUnavailableError(
            f"Qdrant failed in {self._place!r}: {reason:.200}. Is the disk full, or the folder "
            "changed from outside? Open it again, or restore it from a backup."
        ) from error
