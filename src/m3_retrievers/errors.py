"""Every error and warning this package raises, one tree.

::

    M3Error
    ├── InputError (ValueError)          a value the caller passed
    │   ├── CallError (TypeError)        an argument the call does not take, or one it lacks
    │   ├── DuplicateIdError             an id given twice, or already in the index
    │   ├── FilterError                  a metadata filter that cannot be read
    │   ├── TextTooLongError             a text over the limit, with truncation="error"
    │   ├── DatasetError                 a test collection that cannot be read as one
    │   └── TrainingDataError            a training line that cannot be learned from
    ├── CheckpointError (ValueError)     a model folder that cannot be used as it is
    │   ├── MissingHeadError             a head is asked for and its file is not there
    │   └── HeadShapeError               a head's tensor does not fit the backbone
    ├── SavedIndexError (ValueError)         a saved index that cannot be opened or replaced
    │   ├── IndexCorruptError            a file is torn, missing or changed
    │   ├── IndexModelError              it was built by another model
    │   └── IndexLockedError             another process is writing it
    ├── IndexUnavailableError (ConnectionError)  closed, unreachable, or too slow to answer
    ├── EncoderUnavailableError (ConnectionError)  a model's server: unreachable, busy, too slow
    ├── EncoderAnswerError (ValueError)  a model's server refuses, or its answer cannot be right
    ├── TrainingError (RuntimeError)     training went where it cannot succeed
    ├── MissingOutputError (ValueError)  a score needs an output that was not computed
    ├── UnknownNameError (AttributeError)    a name of another library; here it is called so
    ├── UnknownImportError (ImportError)     a name is imported from where it is not
    └── MissingExtraError (ImportError)  an optional dependency is not installed

    M3Warning (UserWarning)
    ├── TruncationWarning                texts were cut to the length limit
    ├── UnknownTokenWarning              texts in a language the model cannot read
    ├── LexicalFallbackWarning           no sparse head: BM25 serves as the lexical leg
    ├── MemoryWarning                    memory ran out: the batch was halved
    └── TrainingWarning                  training goes on, but something wants a look

Each message says what was expected, what came, and what to do about it. The bases
from the standard library let callers who do not know this package catch what they
would expect to catch.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType


class M3Error(Exception):
    """The root: ``except M3Error`` catches whatever this package raises itself."""


class InputError(M3Error, ValueError):
    """A value passed by the caller is outside what the call accepts."""


class CallError(InputError, TypeError):
    """A call has an argument that it does not take, or lacks one that it needs."""


class DuplicateIdError(InputError):
    """An id occurs twice in one call, or is already in the index."""


class FilterError(InputError):
    """A metadata filter has an unknown operator or the wrong shape."""


class TextTooLongError(InputError):
    """A text is over the length limit and ``truncation="error"`` was asked for."""


class DatasetError(InputError):
    """A test collection's file is missing, malformed, or contradicts another of its files."""


class TrainingDataError(InputError):
    """A line of training data is malformed, or holds nothing to learn from."""


class TrainingError(M3Error, RuntimeError):
    """Training reached a state it cannot recover from, such as a sparse head of zeros."""


class CheckpointError(M3Error, ValueError):
    """A model folder is incomplete, unreadable or not what it claims to be."""


class MissingHeadError(CheckpointError):
    """A head was asked for and no file in the folder holds it."""


class HeadShapeError(CheckpointError):
    """A head's tensors do not fit the backbone's hidden size."""


class SavedIndexError(M3Error, ValueError):
    """A saved index cannot be opened, or a folder cannot be saved into."""


class IndexCorruptError(SavedIndexError):
    """A file of a saved index is missing, torn or changed."""


class IndexModelError(SavedIndexError):
    """A saved index was built by another model or with other settings."""


class IndexLockedError(SavedIndexError):
    """Another process is writing the index, and did not finish within the time allowed."""


class IndexUnavailableError(M3Error, ConnectionError):
    """An index was closed, or its engine cannot be reached, fails, or does not answer in time."""


class EncoderUnavailableError(M3Error, ConnectionError):
    """A model's server cannot be reached, is busy, fails, or does not answer in time."""


class EncoderAnswerError(M3Error, ValueError):
    """A model's server refuses a request, or answers what cannot be an answer to it."""


class MissingOutputError(M3Error, ValueError):
    """A score needs a representation that was not computed."""


class UnknownNameError(M3Error, AttributeError):
    """An object is asked for a name of another library; the message says what to write."""


class UnknownImportError(M3Error, ImportError):
    """A name is imported from where it is not; the message says where it is."""


class MissingExtraError(M3Error, ImportError):
    """An optional dependency is missing; the message holds the pip command."""

    def __init__(self, *, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed. "
            f'Install it with: pip install "m3-retrievers[{extra}]"'
        )
        self.package = package
        self.extra = extra


class M3Warning(UserWarning):
    """The root of this package's warnings."""


class TruncationWarning(M3Warning):
    """Texts were cut to the length limit; given once a call, with the count."""


class UnknownTokenWarning(M3Warning):
    """Many of a call's tokens are unknown to the model; given once a call, with the share."""


class LexicalFallbackWarning(M3Warning):
    """The model has no sparse head, so BM25 serves as the lexical leg."""


class MemoryWarning(M3Warning):
    """Memory ran out during encoding, and the token budget was halved."""


class TrainingWarning(M3Warning):
    """Training goes on, but a figure says that something should be looked at."""


# Who may stand between a caller's line and ours; naming their files would help nobody.
_BETWEEN = {
    "m3_retrievers",
    "langchain_core",
    "langchain_classic",
    "llama_index",
    "llama_index_instrumentation",  # whose wrapper is the last frame of every LlamaIndex call
    "wrapt",
    "pydantic",
    "asyncio",
    "concurrent",
    "contextlib",
    "functools",
    "threading",
}


# Where warnings go instead, in this thread or task.
_COLLECTED: ContextVar[list[tuple[type[M3Warning], str]] | None] = ContextVar(
    "collected", default=None
)


@contextmanager
def collected() -> Iterator[list[tuple[type[M3Warning], str]]]:
    """Gather this thread's warnings of the package instead of giving them.

    Python's own way to catch warnings holds for the whole process, so a server that works for
    several callers at once could not tell whose they are.
    """
    found: list[tuple[type[M3Warning], str]] = []
    token = _COLLECTED.set(found)
    try:
        yield found
    finally:
        _COLLECTED.reset(token)


def warn(message: str, category: type[M3Warning]) -> None:
    """Give a warning that names the caller's line, however deep inside the package it arises.

    A worker thread has no caller's line; there it names the thread's own first line.
    """
    collected = _COLLECTED.get()
    if collected is not None:
        collected.append((category, message))
        return
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and _room(frame) in _BETWEEN:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level + 1)


def _room(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]
