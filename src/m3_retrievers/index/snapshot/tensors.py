"""safetensors files: written piece by piece, and read back whole or by rows.

The format: eight bytes with the header's length, the header in JSON, then the arrays. Token
vectors are most of an index and few of them are read in a search, so a large matrix stays in
its file: each block is compared with its SHA-256 when it is touched for the first time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from threading import Lock
from typing import Any
from weakref import finalize

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from m3_retrievers.errors import IndexCorruptError
from m3_retrievers.index.stores.chunks import Pieces
from m3_retrievers.index.stores.compressed import compression_fault

# A block is what is hashed at once: one document of 64 vectors of 384 float16 has 48 KiB, so a
# search that touches 200 documents reads little else.
_BLOCK_BYTES = 1 << 16
_KINDS = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "int64": "I64",
    "int32": "I32",
    "int8": "I8",
    "uint8": "U8",
}


def save_file(arrays: Mapping[str, NDArray[Any] | Pieces], path: Path) -> None:
    """Write arrays as a safetensors file; pieces are written one by one."""
    # the largest numbers first, so that all of them are aligned
    names = sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name))
    header, end = {}, 0
    for name in names:
        array = arrays[name]
        span = [end, end := end + array.nbytes]
        kind = _KINDS[array.dtype.name]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": span}
    content = json.dumps(header).encode()
    content += b" " * (-len(content) % 8)
    with path.open("wb") as file:
        file.write(len(content).to_bytes(8, "little") + content)
        for name in names:
            for part in _parts(arrays[name]):
                file.write(np.ascontiguousarray(part).data)


def load_file(path: Path, *, but: Collection[str] = ()) -> dict[str, NDArray[Any]]:
    """Return a safetensors file's arrays by ``file.part``, read into memory, but for some."""
    with safe_open(path, framework="numpy") as file:
        names = {f"{path.stem}.{part}": part for part in file.keys()}  # noqa: SIM118
        return {name: file.get_tensor(part) for name, part in names.items() if name not in but}


def block_digests(matrix: NDArray[Any] | Pieces) -> NDArray[np.uint8]:
    """Return (b, 32) the SHA-256 of each block of a matrix's rows, the last one shorter."""
    rows = rows_of_block(matrix)
    digests, digest, room = [], hashlib.sha256(), rows
    for part in _parts(matrix):
        at = 0
        while at < len(part):
            taken = part[at : at + room]
            digest.update(np.ascontiguousarray(taken).data)
            at, room = at + len(taken), room - len(taken)
            if not room:
                digests.append(digest.digest())
                digest, room = hashlib.sha256(), rows
    if room < rows:
        digests.append(digest.digest())
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)


def rows_of_block(matrix: Any) -> int:
    """Return how many rows of a matrix are hashed at once."""
    size: int = matrix.dtype.itemsize * matrix.shape[1]
    return max(1, _BLOCK_BYTES // max(1, size))


def rows_in_file(path: Path, name: str, digests: NDArray[np.uint8]) -> FileRows:
    """Return a matrix that stays in its file; KeyError or ValueError where it is not there."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        entry = json.loads(file.read(length))[name.partition(".")[2]]
    dtype = {kind: dtype for dtype, kind in _KINDS.items()}[entry["dtype"]]
    start, end = entry["data_offsets"]
    rows, width = entry["shape"]
    if end - start != rows * width * np.dtype(dtype).itemsize:
        raise ValueError(f"{name} has another size than its shape says")
    return FileRows(
        path, digests, dtype=np.dtype(dtype), shape=(rows, width), at=8 + length + start
    )


class FileRows:
    """A matrix (n, h) in a file, each block of which is checked when it is first read.

    It is sliced and indexed by rows, as an array is, and gives copies. Read, not mapped: the
    system counts whole neighbourhoods of what is touched in a mapping as the process's memory
    (0.33 GB for 200 documents of 10 MB), and a file cut short would end the process. Raises
    IndexCorruptError where a block is not what was saved.
    """

    def __init__(
        self,
        path: Path,
        digests: NDArray[np.uint8],
        *,
        dtype: np.dtype[Any],
        shape: tuple[int, int],
        at: int,
    ) -> None:
        self.dtype, self.shape, self.ndim, self.itemsize = dtype, shape, 2, dtype.itemsize
        self.nbytes = shape[0] * shape[1] * dtype.itemsize
        self._path, self._digests, self._at = path, digests, at
        self._rows = rows_of_block(self)
        if len(digests) != -(-len(self) // self._rows):
            raise ValueError(f"{path.name} expects a digest for each of its blocks")
        self._checked = np.zeros(len(digests), bool)
        # open as long as the index is, so that a save may remove the file
        self._file = path.open("rb", buffering=0)
        self._reading = Lock()
        finalize(self, self._file.close)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        if isinstance(rows, slice):
            first, last, step = rows.indices(len(self))
            if step == 1:
                return self._span(first, max(first, last))
            rows = np.arange(first, last, step)
        wanted = np.asarray(rows)
        parts = [self._span(row, row + 1) for row in wanted.tolist()]
        return np.concatenate([np.empty((0, self.shape[1]), self.dtype), *parts])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype=dtype)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle what is in the file, which need not be there later."""
        return np.array, (self[:],)

    def _span(self, first: int, last: int) -> NDArray[Any]:
        """Return the rows ``first`` to ``last``, after checking the blocks they lie in."""
        blocks = range(first // self._rows, -(-last // self._rows) if last > first else 0)
        if np.all(self._checked[blocks.start : blocks.stop]):
            return self._read(first, last)
        start = blocks.start * self._rows
        content = self._read(start, min(len(self), blocks.stop * self._rows))
        for block in blocks:
            at = block * self._rows - start
            self._check(block, content[at : at + self._rows])
        return content[first - start : last - start]

    def _read(self, first: int, last: int) -> NDArray[Any]:
        rows = np.empty((last - first, self.shape[1]), self.dtype)
        row = self.shape[1] * self.itemsize
        waiting = rows.data.cast("B") if rows.size else memoryview(b"")
        with self._reading:
            self._file.seek(self._at + first * row)
            while waiting:
                count = self._file.readinto(waiting)
                if not count:
                    raise self._corrupt("it is torn")
                waiting = waiting[count:]
        return rows

    def _check(self, block: int, content: NDArray[Any]) -> None:
        if hashlib.sha256(content.data).digest() != self._digests[block].tobytes():
            raise self._corrupt("a block's SHA-256 differs")
        if fault := compression_fault(content, self.dtype.name):
            raise self._corrupt(fault)
        self._checked[block] = True

    def _corrupt(self, fault: str) -> IndexCorruptError:
        return IndexCorruptError(
            f"{str(self._path)!r} was changed: {fault}. Restore it from a backup, or index the "
            "documents again into another folder."
        )


def _parts(array: NDArray[Any] | Pieces) -> Iterator[NDArray[Any]]:
    yield from array.parts if isinstance(array, Pieces) else [array]
