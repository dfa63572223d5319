"""An index by one string: which engine keeps it, and where."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m3_retrievers.errors import InputError, SavedIndexError
from m3_retrievers.index.base import Index, TermWeighting
from m3_retrievers.index.local import LocalIndex
from m3_retrievers.index.snapshot.manifest import MANIFEST
from m3_retrievers.types.representations import Output

# Of one letter is a drive of Windows, and what begins with a dot or a slash is a path.
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+):(.*)", re.IGNORECASE | re.DOTALL)
_POSTGRES = ("postgresql", "postgres")


@dataclass(frozen=True, slots=True)
class Address:
    """An address taken apart.

    engine: ``"sqlite"``, ``"qdrant"``, ``"milvus"`` or ``"postgresql"``. target: what the
    engine's index is given, a path, a URL or a connection string. path: the target, where it
    lies on this machine without a server; else None.
    """

    engine: str
    target: str
    path: Path | None

    @property
    def snapshot(self) -> bool:
        """Whether it is a folder that ``LocalIndex.save`` wrote."""
        return self.path is not None and (self.path / MANIFEST).is_file()


def open(
    address: str | Path,
    *,
    modes: Sequence[Output] | None = None,
    weighting: TermWeighting | None = None,
    restore: Callable[[Mapping[str, Any]], TermWeighting] | None = None,
    create: bool = True,
) -> Index:
    """Return the index at an address; a new one is made there where there is none.

    ======================================  ==================================================
    ``./documents.m3``, ``sqlite:./file``   a DurableIndex, in one file
    ``qdrant:./data``                       a QdrantIndex in a folder, without a server
    ``qdrant:http://localhost:6333``        the same on a server or cluster
    ``milvus:./m.db``                       a MilvusIndex in a file of Milvus Lite
    ``milvus:http://localhost:19530``       the same on a server or cluster
    ``postgresql://user@host/database``     a PgVectorIndex
    a folder that ``save`` wrote            a LocalIndex: changes last from ``save`` on
    ======================================  ==================================================

    modes: what a new index keeps, of ``"dense"``, ``"sparse"``, ``"colbert"``; None for all.
    weighting: adds BM25 to a new one, in a file or in Qdrant. restore: makes the BM25 of an index
    in a file or a folder again (``BM25.from_state``). create: False makes nothing.
    For other options make the class itself: keys and tokens do not belong into an address.

    Raises InputError for an address of another kind, MissingExtraError with the pip command for
    an engine that is not installed, SavedIndexError where nothing is to be made and nothing is,
    and what the class raises.
    """
    home = parse_address(address)
    if home.path is not None and not create and not home.path.exists():
        raise SavedIndexError(
            f"expected an index at {str(address)!r}, got nothing there. Check the path, or make "
            "one with `m3-retrievers index`."
        )
    if home.snapshot:
        assert home.path is not None
        return LocalIndex.load(home.path, weighting=restore)
    if home.engine == "sqlite":
        return _durable(home.target, modes, weighting, restore)
    return _ENGINES[home.engine](home.target, modes, weighting)


def parse_address(address: str | Path) -> Address:
    """Return an address taken apart; InputError for one of an unknown kind.

    >>> parse_address("milvus:http://localhost:19530")
    Address(engine='milvus', target='http://localhost:19530', path=None)
    >>> parse_address("./notes.m3").engine
    'sqlite'
    """
    if not isinstance(address, str | os.PathLike) or not str(address):
        raise InputError(f"expected an index's address, a string or a path, got {address!r:.60}.")
    found = _SCHEME.fullmatch(address) if isinstance(address, str) else None
    if found is None:
        return Address("sqlite", str(address), Path(address))
    scheme, rest = found[1].lower(), found[2]
    if scheme in _POSTGRES:
        return Address("postgresql", str(address), None)
    if scheme not in ("sqlite", *_ENGINES) or not rest:
        # what follows the scheme may hold a password
        raise InputError(
            f"expected an address such as 'qdrant:./data', 'milvus:./m.db', 'postgresql://…' or "
            f"'./file.m3', got one that begins with {scheme + ':'!r:.40}"
            f"{'' if rest else ' and ends there'}. Write a path with a colon as './a:b'."
        )
    path = None if "://" in rest else Path(rest)
    return Address(scheme, rest, path)


def shown_address(address: str | Path) -> str:
    """Return an address as it may be shown: without a user, a password or a query.

    >>> shown_address("postgresql://me:secret@db.example/notes?sslmode=require")
    'postgresql://db.example/notes'
    """
    text = str(address)
    return re.sub(r"(?<=://)[^/?#]*@|\?.*", "", text) if "://" in text else text


def _durable(
    target: str,
    modes: Sequence[Output] | None,
    weighting: TermWeighting | None,
    restore: Callable[[Mapping[str, Any]], TermWeighting] | None,
) -> Index:
    from m3_retrievers.index.durable.index import DurableIndex

    return DurableIndex(target, modes=modes, weighting=weighting, restore=restore)


def _qdrant(target: str, modes: Sequence[Output] | None, weighting: TermWeighting | None) -> Index:
    from m3_retrievers.index.qdrant.home import QdrantIndex

    return QdrantIndex(target, modes=modes, weighting=weighting)


def _milvus(target: str, modes: Sequence[Output] | None, weighting: TermWeighting | None) -> Index:
    from m3_retrievers.index.milvus.index import MilvusIndex

    _without(weighting, "MilvusIndex")
    return MilvusIndex(target, modes=modes)


def _postgresql(
    target: str, modes: Sequence[Output] | None, weighting: TermWeighting | None
) -> Index:
    from m3_retrievers.index.pgvector.index import PgVectorIndex

    _without(weighting, "PgVectorIndex")
    return PgVectorIndex(target, modes=modes)


def _without(weighting: TermWeighting | None, name: str) -> None:
    if weighting is not None:
        raise InputError(
            f"{name} expects no weighting, for it keeps no BM25, got {weighting.name!r}. Choose a "
            "file or Qdrant, or a model with a sparse head."
        )


_ENGINES: dict[str, Callable[[str, Any, Any], Index]] = {
    "qdrant": _qdrant,
    "milvus": _milvus,
    "postgresql": _postgresql,
}
