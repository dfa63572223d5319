"""safetensors files: written piece by piece, and read back, or mapped and checked as it is read.

The format: eight bytes with the header's length, the header in JSON, then the arrays. Token
vectors are most of an index and few of them are read in a search, so a large matrix stays in
its file: each block is compared with its SHA-256 when it is touched for the first time.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from m3_retrievers.errors import IndexCorruptError
from m3_retrievers.index.stores.chunks import Pieces
from m3_retrievers.index.stores.compressed import compression_fault

# A block is what is hashed at once: one document of 64 vectors of 384 float16 has 48 KiB, so a
# search that touches 200 documents reads little else.
_BLOCK_BYTES = 1 << 16
# How much of a file may count as this process's memory, about: a search reads some 25 MB.
_RESIDENT_BYTES = 1 << 27
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


def mapped(path: Path, name: str, digests: NDArray[np.uint8]) -> MappedRows:
    """Return a matrix that stays in its file; KeyError or ValueError where it is not there."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        entry = json.loads(file.read(length))[name.partition(".")[2]]
    dtype = {kind: dtype for dtype, kind in _KINDS.items()}[entry["dtype"]]
    start, end = entry["data_offsets"]
    rows, width = entry["shape"]
    if end - start != rows * width * np.dtype(dtype).itemsize:
        raise ValueError(f"{name} has another size than its shape says")
    with path.open("rb") as file:
        # what somebody writes to it stays in memory: torch takes no read-only array
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    matrix = np.frombuffer(content, dtype, rows * width, offset=8 + length + start)
    return MappedRows(matrix.reshape(rows, width), digests, content=content, path=path)


class MappedRows:
    """A matrix (n, h) in a file, each block of which is checked when it is first read.

    It is sliced and indexed by rows, as an array is. Raises IndexCorruptError where a block is
    not what was saved.
    """

    def __init__(
        self,
        matrix: NDArray[Any],
        digests: NDArray[np.uint8],
        *,
        content: mmap.mmap,
        path: Path,
    ) -> None:
        self._matrix, self._digests, self._path = matrix, digests, path
        self._content, self._touched = content, 0
        self._rows = rows_of_block(matrix)
        if len(digests) != -(-len(matrix) // self._rows):
            raise ValueError(f"{path.name} expects a digest for each of its blocks")
        self._checked = np.zeros(len(digests), bool)
        self.dtype, self.shape, self.nbytes = matrix.dtype, matrix.shape, matrix.nbytes
        self.itemsize, self.ndim = matrix.itemsize, matrix.ndim

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        if isinstance(rows, slice):
            first, last, _ = rows.indices(len(self))
            blocks = np.arange(first // self._rows, -(-last // self._rows) if last > first else 0)
        else:
            blocks = np.unique(np.asarray(rows) // self._rows)
        self._let_go(len(blocks))
        for block in blocks[~self._checked[blocks]].tolist():
            self._check(block)
        return np.asarray(self._matrix[rows])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self[:], dtype=dtype)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle what is in the file, which need not be there later."""
        return np.array, (self[:],)

    def _let_go(self, blocks: int) -> None:
        """Count blocks as read, and now and then give the pages that were read back.

        They stay in the system's cache, from where a view that is still used gets them again.
        """
        self._touched += blocks
        if self._touched * _BLOCK_BYTES > _RESIDENT_BYTES and hasattr(mmap, "MADV_DONTNEED"):
            self._content.madvise(mmap.MADV_DONTNEED)
            self._touched = blocks

    def _check(self, block: int) -> None:
        content = self._matrix[block * self._rows : (block + 1) * self._rows]
        if hashlib.sha256(content.data).digest() != self._digests[block].tobytes():
            fault: str | None = "a block's SHA-256 differs"
        else:
            fault = compression_fault(content, self.dtype.name)
        if fault:
            raise IndexCorruptError(
                f"{str(self._path)!r} was changed: {fault}. Restore it from a backup, or index "
                "the documents again into another folder."
            )
        self._checked[block] = True


def _parts(array: NDArray[Any] | Pieces) -> Iterator[NDArray[Any]]:
    yield from array.parts if isinstance(array, Pieces) else [array]
