"""Opening the file of a durable index: made if it is not there, and with the options it has."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from m3_retrievers.checks import check_k
from m3_retrievers.errors import InputError, SavedIndexError
from m3_retrievers.index.base import TermWeighting
from m3_retrievers.index.checking import check_settings
from m3_retrievers.index.durable.file import APPLICATION, DurableFile
from m3_retrievers.index.durable.sqlite import Database
from m3_retrievers.index.stores.compressed import ColbertDtype, check_colbert_dtype
from m3_retrievers.index.stores.stores import as_outputs
from m3_retrievers.types.plan import Mode
from m3_retrievers.types.representations import ALL_OUTPUTS, Output

Colbert: TypeAlias = Literal["disk", "memory", "recompute"]
Restore: TypeAlias = Callable[[Mapping[str, Any]], TermWeighting]
_COLBERT: tuple[Colbert, ...] = ("disk", "memory", "recompute")


@dataclass(frozen=True, slots=True)
class Options:
    """What a caller asked for; None leaves it to the file, and to the defaults of a new one."""

    modes: Sequence[Output] | None
    weighting: TermWeighting | None
    restore: Restore | None
    colbert: Colbert | None
    colbert_dtype: ColbertDtype | None
    colbert_pool_factor: int | None

    def __post_init__(self) -> None:
        if self.colbert not in (None, *_COLBERT):
            raise InputError(f"colbert expects one of {_COLBERT}, got {self.colbert!r:.80}.")
        if self.colbert_dtype is not None:
            check_colbert_dtype(self.colbert_dtype)
        if self.colbert_pool_factor is not None:
            check_k(self.colbert_pool_factor, name="colbert_pool_factor")
        if self.modes is not None:
            as_outputs(self.modes)

    @property
    def outputs(self) -> tuple[Output, ...]:
        """What is kept of each document: the modes, without vectors to be made again."""
        modes = as_outputs(ALL_OUTPUTS if self.modes is None else self.modes)
        return tuple(m for m in modes if m != "colbert" or self.colbert != "recompute")

    @property
    def state(self) -> dict[str, Any] | None:
        """The weighting's parameters, without its terms."""
        if self.weighting is None:
            return None
        kept = dict(self.weighting.state())
        kept.pop("vocabulary", None)
        return {**kept, "mode": self.weighting.name}


def made(database: Database, options: Options) -> tuple[DurableFile, dict[str, Any]]:
    """Return the file, made where there was none, and its settings.

    Raises InputError for an option that the file was not made with, IndexCorruptError for
    settings that were changed.
    """
    file = DurableFile(database)
    with database.reading():
        there = file.made
    if not there:
        _make(file, options)
    with database.reading():
        # files of a version without pooling do not name its factor
        settings = {"colbert_pool_factor": 1, **file.settings()}
    try:
        check_settings(settings)
    except ValueError as error:
        raise file.corrupt(str(error)) from error
    _check_asked(file, options, settings)
    return file, settings


def _make(file: DurableFile, options: Options) -> None:
    state = options.state
    if state is not None and restore_of(options) is None:
        raise InputError(
            "weighting expects a class with from_state, or restore= beside it, got "
            f"{type(options.weighting).__name__}. Pass restore=, which makes it from its state()."
        )
    with file.database.writing():
        if not file.made:  # no other process was faster
            file.make(
                {
                    "modes": list(options.outputs),
                    "colbert_dtype": options.colbert_dtype or "float16",
                    "colbert_pool_factor": options.colbert_pool_factor or 1,
                    "weighting": state,
                }
            )
    # SQLite takes a damaged log for one that was torn: in the file itself the index is made
    file.database.checkpoint()
    file.database.sync_folder()


def _check_asked(file: DurableFile, options: Options, settings: Mapping[str, Any]) -> None:
    """Raise InputError for an option that asks for something else than the file keeps."""
    for name in ("modes", "colbert_dtype", "colbert_pool_factor"):
        value = list(options.outputs) if name == "modes" else getattr(options, name)
        if getattr(options, name) is not None and value != settings[name]:
            raise InputError(
                f"The index in {file.place} was made with {name} {settings[name]}, got {value}. "
                f"Leave {name}= out, or make another index."
            )
    if options.colbert is not None and (options.colbert != "recompute") != (
        "colbert" in settings["modes"]
    ):
        keeps = "keeps" if "colbert" in settings["modes"] else "does not keep"
        raise InputError(
            f"The index in {file.place} {keeps} ColBERT vectors, got colbert={options.colbert!r}. "
            "Leave colbert= out, or make another index."
        )
    state = settings["weighting"]
    if options.weighting is not None and options.state != state:
        raise InputError(
            f"The index in {file.place} was made with the weighting {state}, got "
            f"{options.state}. Leave weighting= out and pass restore=BM25.from_state."
        )
    if state is not None and restore_of(options) is None:
        raise SavedIndexError(
            f"The index in {file.place} has a leg {state.get('mode')!r}: open it with "
            "restore=BM25.from_state, or through HybridRetriever.open."
        )


def restore_of(options: Options) -> Restore | None:
    """Return what makes the weighting again from its state."""
    found: Restore | None = options.restore or getattr(type(options.weighting), "from_state", None)
    return found


def database_of(path: str | Path, *, timeout: float) -> Database:
    """Return the database of a path; InputError for what is no path or no time."""
    if not isinstance(path, str | Path) or not str(path).strip():
        raise InputError(f"A durable index expects the path of a file, got {path!r:.80}.")
    number = isinstance(timeout, int | float) and not isinstance(timeout, bool)
    if not number or not 0 <= timeout < math.inf:
        raise InputError(f"timeout expects seconds of at least 0, got {timeout!r:.80}.")
    return Database(Path(path).absolute(), application=APPLICATION, timeout=timeout)


def modes_of(settings: Mapping[str, Any]) -> frozenset[Mode]:
    """Return the modes that an index of these settings scores."""
    weighting = settings["weighting"]
    return frozenset([*settings["modes"], *([weighting["mode"]] if weighting else [])])


def is_made(path: str | Path) -> bool:
    """Return whether a durable index is in a file; False for a path that is free.

    Raises SavedIndexError for a folder, a file of anything else and one that cannot be read.
    """
    with _visited(path) as file:
        return file is not None


def bound_model(path: str | Path) -> dict[str, Any]:
    """Return the record of the model that an index is bound to, {} for none.

    Raises SavedIndexError where there is no index, and as ``is_made`` does.
    """
    with _visited(path) as file:
        if file is None:
            raise SavedIndexError(f"There is no durable index in {str(path)!r}.")
        model = file.note().get("model", {})
        return dict(model) if isinstance(model, dict) else {}


@contextmanager
def _visited(path: str | Path) -> Iterator[DurableFile | None]:
    """Give the file of an index while it is read, or None where no index was made."""
    database = database_of(path, timeout=10.0)
    try:
        database.check_files()
        if not database.path.exists() or not database.path.stat().st_size:
            yield None
            return
        with database.reading():
            file = DurableFile(database)
            yield file if file.made else None
    finally:
        database.close()
