"""Whether what was read back from a disk can be an index, however well its digests agree.

A digest tells an accident; it says nothing of a file that somebody made. What passes here can
be searched without an error further down.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m3_retrievers.index.arrays import Arrays
from m3_retrievers.index.snapshot.tensors import FileRows
from m3_retrievers.index.stores.compressed import COLBERT_DTYPES, compression_fault
from m3_retrievers.index.values import fault_of
from m3_retrievers.types.hits import Record
from m3_retrievers.types.representations import ALL_OUTPUTS, Output

_WIDEST = 2**31 - 1


def _refused(constant: str) -> Any:
    raise ValueError(f"it holds {constant}, which is no JSON")


_DECODER = json.JSONDecoder(parse_constant=_refused)


def record_of(content: bytes) -> Record:
    """Return the record that was written as a JSON array; ValueError for anything else."""
    try:
        value = _DECODER.decode(content.decode("utf-8", "surrogatepass"))
    except RecursionError as error:
        raise ValueError("a record is nested too deep") from error
    if not isinstance(value, list) or len(value) != 3:
        raise ValueError("a record is no list of id, text and metadata")
    id, text, metadata = value
    if not (isinstance(id, str) and isinstance(text, str) and isinstance(metadata, dict)):
        raise ValueError("a record expects a string, a string and an object")
    if fault := fault_of(metadata):
        raise ValueError(f"a record's metadata has {fault}")
    return Record(id, text, metadata)


def check_settings(settings: dict[str, Any]) -> None:
    """Raise ValueError for settings that no index writes."""
    modes, dtype = settings.get("modes"), settings.get("colbert_dtype")
    state = settings.get("weighting")
    if not isinstance(modes, list) or [m for m in ALL_OUTPUTS if m in modes] != modes:
        raise ValueError(f"modes are some of {ALL_OUTPUTS} in that order, got {modes!r:.80}")
    if dtype not in COLBERT_DTYPES:
        raise ValueError(f"colbert_dtype is one of {COLBERT_DTYPES}, got {dtype!r:.80}")
    factor = settings.get("colbert_pool_factor", 1)
    if isinstance(factor, bool) or not isinstance(factor, int) or factor < 1:
        raise ValueError(f"colbert_pool_factor is an integer from 1, got {factor!r:.80}")
    if state is not None and not isinstance(state, dict):
        raise ValueError(f"weighting is an object or null, got {state!r:.80}")
    if state and "vocabulary" in state:
        check_terms(state["vocabulary"])


def check_saved(arrays: Arrays, records: Sequence[Record], settings: dict[str, Any]) -> None:
    """Raise ValueError unless what a folder holds makes an index."""
    check_settings(settings)
    if not isinstance(settings.get("extra"), dict):
        raise ValueError("extra is an object")
    if len({record.id for record in records}) != len(records):
        raise ValueError("an id comes twice")
    state = settings["weighting"]
    check_arrays(
        arrays,
        rows=len(records),
        outputs=settings["modes"],
        terms=None if state is None else len(state.get("vocabulary", range(_WIDEST))),
        colbert_dtype=settings["colbert_dtype"],
    )


def check_terms(terms: Any) -> None:
    """Raise ValueError unless these are different strings in a list."""
    strings = isinstance(terms, list) and all(isinstance(term, str) for term in terms)
    if not strings or len(set(terms)) != len(terms):
        raise ValueError("a vocabulary is a list of different strings")


def check_arrays(
    arrays: Arrays,
    *,
    rows: int,
    outputs: Sequence[Output],
    terms: int | None,
    colbert_dtype: str,
) -> None:
    """Raise ValueError unless arrays hold so many rows of these outputs.

    terms: how many the vocabulary has, None where there is no weighting.
    """
    fault = next(_faults(arrays, rows, outputs, terms, colbert_dtype), None)
    if fault:
        raise ValueError(fault)


def _faults(
    arrays: Arrays, rows: int, outputs: Sequence[Output], terms: int | None, dtype: str
) -> Iterator[str]:
    if "dense" in outputs:
        yield from _matrix_faults("dense.vectors", arrays, "float32", rows)
    if "sparse" in outputs:
        yield from _csr_faults("sparse", arrays, rows, _WIDEST)
    if "colbert" in outputs and "colbert.lengths" in arrays:
        yield from _kind_faults("colbert.lengths", arrays, "int64", (rows,))
        yield from _kind_faults("colbert.width", arrays, "int64", (1,))
        if np.any(arrays["colbert.lengths"] < 0) or not 0 <= arrays["colbert.width"][0] <= _WIDEST:
            yield "colbert.lengths or colbert.width are below 0"
    elif "colbert" in outputs:
        yield from _kind_faults("colbert.offsets", arrays, "int64", (rows + 1,))
        offsets = arrays["colbert.offsets"]
        if isinstance(arrays.get("colbert.vectors"), FileRows):  # checked when it is read
            shape = (int(offsets[-1]), arrays["colbert.vectors"].shape[1])
            yield from _kind_faults("colbert.vectors", arrays, dtype, shape)
        else:
            yield from _matrix_faults("colbert.vectors", arrays, dtype, int(offsets[-1]))
            if fault := compression_fault(arrays["colbert.vectors"], dtype):
                yield f"colbert.vectors: {fault}"
        yield from _offset_faults("colbert.offsets", offsets, len(arrays["colbert.vectors"]))
    if terms is not None:
        yield from _csr_faults("bm25", arrays, rows, terms)


def _kind_faults(name: str, arrays: Arrays, dtype: str, shape: tuple[int, ...]) -> Iterator[str]:
    if name not in arrays:
        yield f"{name} is missing"
    elif arrays[name].dtype != dtype or arrays[name].shape != shape:
        found = arrays[name]
        yield f"{name} expects {dtype} {shape}, got {found.dtype} {found.shape}"


def _matrix_faults(name: str, arrays: Arrays, dtype: str, rows: int) -> Iterator[str]:
    width = arrays[name].shape[-1] if name in arrays and arrays[name].ndim == 2 else 0
    yield from _kind_faults(name, arrays, dtype, (rows, width))
    if not np.all(np.isfinite(arrays[name])):
        yield f"{name} holds NaN or infinity"


def _csr_faults(name: str, arrays: Arrays, rows: int, widest: int) -> Iterator[str]:
    yield from _kind_faults(f"{name}.shape", arrays, "int64", (2,))
    height, width = arrays[f"{name}.shape"].tolist()
    if height != rows or not 0 <= width <= widest:
        yield f"{name}.shape expects {rows} rows of at most {widest} columns, got {height, width}"
    yield from _kind_faults(f"{name}.indptr", arrays, "int64", (rows + 1,))
    offsets = arrays[f"{name}.indptr"]
    count = int(offsets[-1])
    yield from _kind_faults(f"{name}.indices", arrays, "int64", (count,))
    kind = "float32" if arrays.get(f"{name}.data", offsets).dtype == "float32" else "float64"
    yield from _kind_faults(f"{name}.data", arrays, kind, (count,))
    columns, data = arrays[f"{name}.indices"], arrays[f"{name}.data"]
    yield from _offset_faults(f"{name}.indptr", offsets, count)
    if np.any(columns < 0) or np.any(columns >= width):
        yield f"{name}.indices are not all in 0..{width - 1}"
    rises = np.diff(columns) > 0
    starts = offsets[1:-1]  # where a row starts, the column before it is another row's
    rises[starts[(starts > 0) & (starts < count)] - 1] = True
    if not np.all(rises):
        yield f"{name}.indices do not ascend within a row"
    if not np.all(np.isfinite(data)):
        yield f"{name}.data holds NaN or infinity"


def _offset_faults(name: str, offsets: NDArray[np.int64], count: int) -> Iterator[str]:
    if offsets[0] != 0 or offsets[-1] != count or np.any(np.diff(offsets) < 0):
        yield f"{name} do not ascend from 0 to {count}"
