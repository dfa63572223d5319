"""A connection to Milvus: calls within a time-out, errors of our tree. Imports pymilvus."""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from m3_retrievers.checks import require_package
from m3_retrievers.errors import (
    IndexLockedError,
    IndexUnavailableError,
    InputError,
    SavedIndexError,
)

# Sums of the inner products of the best matches, which is MaxSim, came with this server.
_ARRAYS_OF_VECTORS = (2, 6, 4)
_SCHEMES = ("http", "https", "tcp", "unix")
# Milvus Lite has one server a file and process; the last index that closes stops it.
_OPEN: Counter[str] = Counter()
_OPENING = threading.Lock()


class Connection:
    """A client of a server, or of a file of Milvus Lite that this process serves itself.

    Every call of the client's goes through ``call``. pymilvus tries again by itself until the
    time-out, which is safe here: all writes name their keys, so that twice is as once.
    """

    def __init__(self, uri: str, *, token: str | None, timeout: float) -> None:
        """Connect; IndexUnavailableError, IndexLockedError or SavedIndexError where it fails."""
        require_package("pymilvus", module="pymilvus", extra="milvus", purpose="MilvusIndex")
        self.timeout = timeout
        self.path = None if _is_server(uri) else os.path.abspath(uri)  # noqa: PTH100 - as Lite's
        self.place = shown_uri(uri)
        self._client: Any = None
        address = uri if self.path is None else _served(self.path)
        try:
            self._client = _client(address, token=token, timeout=timeout)
            self.version = str(self.call("get_server_version"))
        except IndexUnavailableError as error:
            if self.path is not None and self._client is None:
                _release(self.path)
            self.close()
            raise IndexUnavailableError(
                f"expected a Milvus at {self.place!r}, got no answer ({error}). Start it, or "
                "check the address, the token and the network."
            ) from error

    @property
    def has_arrays_of_vectors(self) -> bool:
        """Whether this server keeps a vector a token and scores them by MaxSim."""
        parts = self.version.lstrip("v").split("-")[0].split(".")[:3]
        numbers = tuple(int(part) for part in parts if part.isdigit())
        return self.path is None and numbers >= _ARRAYS_OF_VECTORS

    def call(self, method: str, **arguments: Any) -> Any:
        """Return what a method of the client answers; IndexUnavailableError for what fails."""
        if self._client is None:
            raise IndexUnavailableError(
                f"This index over {self.place!r} was closed. Open it again to go on."
            )
        with _as_unavailable():
            return getattr(self._client, method)(**{"timeout": self.timeout, **arguments})

    def close(self) -> None:
        """Let go of the connection, and of the file where no other index of this process has it."""
        client, self._client = self._client, None
        if client is not None:
            client.close()
            if self.path is not None:
                _release(self.path)


def schema(fields: Sequence[Mapping[str, Any]], *, vectors: Mapping[str, Any] | None = None) -> Any:
    """Return a collection's schema; types by the names of pymilvus's DataType.

    vectors: an array of structs with one vector each, which servers from 2.6.4 on know.
    """
    from pymilvus import DataType, MilvusClient

    made = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    for field in fields:
        made.add_field(**{**field, "datatype": DataType[field["datatype"]]})
    if vectors is not None:
        struct = MilvusClient.create_struct_field_schema()
        struct.add_field("v", DataType.FLOAT_VECTOR, dim=vectors["dim"])
        made.add_field(
            vectors["field_name"],
            datatype=DataType.ARRAY,
            element_type=DataType.STRUCT,
            struct_schema=struct,
            max_capacity=vectors["max_capacity"],
        )
    return made


def index_params(indexes: Sequence[Mapping[str, Any]]) -> Any:
    """Return the indexes of a collection's fields."""
    from pymilvus import MilvusClient

    made = MilvusClient.prepare_index_params()
    for index in indexes:
        made.add_index(**index)
    return made


def embedding_list(vectors: Any) -> Any:
    """Return one query of many vectors (t, h)."""
    from pymilvus.client.embedding_list import EmbeddingList

    return EmbeddingList(vectors)


def shown_uri(uri: str) -> str:
    """Return an address as messages show it, without user and password.

    >>> shown_uri("https://user:secret@cluster.example:443/db"), shown_uri("./m.db")
    ('https://cluster.example:443/db', './m.db')
    """
    if not _is_server(uri) or "@" not in uri:
        return uri
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()


def _is_server(uri: str) -> bool:
    scheme, colon, _ = uri.partition(":")
    if colon and "://" in uri and scheme not in _SCHEMES:
        raise InputError(
            f"uri expects a path such as './m.db' or an address that begins with "
            f"{', '.join(_SCHEMES)}, got one that begins with {scheme!r:.40}."
        )
    return bool(colon) and scheme in _SCHEMES


def _client(address: str, *, token: str | None, timeout: float) -> Any:
    from pymilvus import MilvusClient

    with _as_unavailable():
        return MilvusClient(uri=address, token=token or "", timeout=timeout)


@contextmanager
def _as_unavailable() -> Iterator[None]:
    """Turn what pymilvus and gRPC raise into IndexUnavailableError."""
    import grpc
    from pymilvus.exceptions import MilvusException

    try:
        yield
    except MilvusException as error:
        raise IndexUnavailableError(f"Milvus: {error.message or error!r}"[:500]) from error
    except (grpc.RpcError, grpc.FutureTimeoutError) as error:
        raise IndexUnavailableError(f"Milvus: {type(error).__name__} {error}"[:500]) from error


def _served(path: str) -> str:
    """Return the address at which this process serves a file of Milvus Lite."""
    require_package("milvus-lite", module="milvus_lite", extra="milvus", purpose="A file of Milvus")
    from milvus_lite import server_manager_instance
    from milvus_lite.exceptions import DataDirLockedError

    with _OPENING, _kept_quiet() as failures:
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            failures.append(error)
        address = None if failures else server_manager_instance.start_and_get_uri(path)
        if address is not None:
            _OPEN[path] += 1
            return str(address)
    failure = failures[0] if failures else None
    if isinstance(failure, DataDirLockedError):
        raise IndexLockedError(
            f"expected {path!r} for this process alone, got it in use: Milvus Lite serves a file "
            "to one process. Close it there, or run a Milvus server for several."
        ) from failure
    raise SavedIndexError(
        f"expected a file of Milvus Lite, or a place for one, at {path!r}, got: {failure!r:.300}. "
        "Check the path, its permissions and the disk."
    ) from failure


def _release(path: str) -> None:
    from milvus_lite import server_manager_instance

    with _OPENING:
        _OPEN[path] -= 1
        if not _OPEN[path]:
            server_manager_instance.release_server(path)


@contextmanager
def _kept_quiet() -> Iterator[list[BaseException]]:
    """Collect the exceptions that Milvus Lite logs where it should raise them."""
    failures: list[BaseException] = []

    def keep(record: logging.LogRecord) -> bool:
        if record.exc_info and record.exc_info[1] is not None:
            failures.append(record.exc_info[1])
            return False
        return True

    logger = logging.getLogger("milvus_lite.server_manager")
    logger.addFilter(keep)
    try:
        yield failures
    finally:
        logger.removeFilter(keep)
