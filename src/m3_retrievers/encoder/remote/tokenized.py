"""An encoder that reads texts here and has its model elsewhere: token ids go out.

Truncation, windows and the reports about both stay those of every other encoder, and no server
can cut a text without a word: an answer has as many rows as tokens were sent.
"""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from m3_retrievers.encoder.batching import plan_batches
from m3_retrievers.encoder.checksums import sha256
from m3_retrievers.encoder.collect import Collector
from m3_retrievers.encoder.lazy import Lazy
from m3_retrievers.encoder.pieces import Piece
from m3_retrievers.encoder.reading import Reading
from m3_retrievers.encoder.reading_encoder import ReadingEncoder
from m3_retrievers.encoder.recent import Keep
from m3_retrievers.encoder.remote.answers import numbers
from m3_retrievers.encoder.remote.connection import about_texts
from m3_retrievers.encoder.remote.exchange import Answer, Request
from m3_retrievers.encoder.settings import Settings, weights_for
from m3_retrievers.encoder.source import find_folder, tokenizer_file
from m3_retrievers.encoder.vocabulary import Vocabulary, load_vocabulary
from m3_retrievers.errors import MissingHeadError
from m3_retrievers.types.plan import HybridWeights, check_weights
from m3_retrievers.types.representations import Output, Representations

if TYPE_CHECKING:
    from m3_retrievers.encoder.remote.transport import Transport

LONGEST = 8192


class TokenizedEncoder(ReadingEncoder):
    """What ``VllmEncoder`` and ``TeiEncoder`` have in common.

    tokenizer: the folder or hub id the server's tokenizer comes from.
    """

    def __init__(
        self,
        name: str,
        outputs: tuple[Output, ...],
        *,
        tokenizer: str | Path,
        settings: Settings,
        weights: HybridWeights | None,
        stated_fingerprint: str | None,
        keep: Keep | None,
    ) -> None:
        super().__init__(settings, keep=keep)
        self._name, self._outputs = name, outputs
        self._weights = check_weights(weights, default=weights_for(outputs))
        self._stated = stated_fingerprint
        self._tokenizer = tokenizer
        self._vocabulary = Lazy(self._load_vocabulary)
        self._widths: dict[Output, int] = {}

    # What a kind of server adds

    @property
    @abstractmethod
    def _transports(self) -> Sequence[Transport]: ...

    @abstractmethod
    def _identity(self) -> list[Any]:
        """Return what the server states about its model, and what of it lies here, as JSON."""

    @abstractmethod
    def _fill(
        self,
        collector: Collector,
        reading: Reading,
        outputs: tuple[Output, ...],
        done: Callable[[int], object],
    ) -> None:
        """Put every piece's outputs into the collector."""

    def _longest(self) -> int:
        """Return how many tokens the server takes at once, special ones included."""
        return LONGEST

    # The members of an encoder

    @property
    def name(self) -> str:
        """The name it was given, else the kind of server and its address."""
        return self._name

    @property
    def outputs(self) -> tuple[Output, ...]:
        """The representations this server gives."""
        return self._outputs

    @property
    def default_weights(self) -> HybridWeights:
        """The weights it was made with; the paper's, of the outputs there are."""
        return self._weights

    @property
    def vocabulary_size(self) -> int:
        """Width v of the sparse output."""
        return self._vocabulary.get().vocabulary_size

    @property
    def dimension(self) -> int:
        """Width h of the dense output; the first answer tells it."""
        if "dense" not in self.outputs:
            raise MissingHeadError(
                f"{self.name!r} makes no dense vectors. Give the address of a server that does."
            )
        if "dense" not in self._widths:
            self._compute(["a"], query=False, outputs=("dense",), show_progress=False)
        return min(self._widths["dense"], self.settings.truncate_dim or self._widths["dense"])

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of what is known of the model; see the class for what cannot be known."""
        if self._stated is not None:
            return self._stated
        known = [type(self).__name__, self.settings.truncate_dim, *self._identity()]
        digest = hashlib.sha256(json.dumps(known, sort_keys=True).encode())
        digest.update(sha256(tokenizer_file(self._folder)).encode())
        return digest.hexdigest()

    def close(self) -> None:
        """Close the connections; a later call opens others."""
        for transport in self._transports:
            transport.close()

    # Inside

    @cached_property
    def _folder(self) -> Path:
        return find_folder(self._tokenizer, None)

    def _load_vocabulary(self) -> Vocabulary:
        return load_vocabulary(self._folder, max_length=self._longest())

    def _reader(self, *, query: bool) -> Vocabulary:  # noqa: ARG002
        return self._vocabulary.get()

    def _represent(
        self,
        reading: Reading,
        outputs: tuple[Output, ...],
        done: Callable[[int], object],
        *,
        query: bool,  # noqa: ARG002
    ) -> Representations:
        model = self._vocabulary.get()
        collector = Collector(
            reading.pieces,
            texts=len(reading.tokens),
            without_vector=0 if self._end_vector else len(model.frame.after),
        )
        shows_weights = "tokens" in outputs and "sparse" in self.outputs
        asked = tuple(o for o in self.outputs if o in outputs or (o == "sparse" and shows_weights))
        self._fill(collector, reading, asked, done)
        return collector.representations(
            outputs,
            tokens=reading.tokens,
            unread=reading.unread,
            dropped_ids=model.dropped_ids,
            vocabulary_size=model.vocabulary_size,
        )

    def _width(
        self, answer: Answer, found: object, rows: int | None, output: Output
    ) -> NDArray[np.float32]:
        """Return (rows, width) numbers; the first answer sets the width of all later ones."""
        array = numbers(answer, found, (rows, self._widths.get(output)), what=f"{output} vectors")
        self._widths.setdefault(output, array.shape[1])
        return array

    def _renew_after_fork(self) -> bool:
        super()._renew_after_fork()
        self._vocabulary.renew_lock()
        for transport in self._transports:
            transport.renew_after_fork()
        return False


def ask_in_batches(
    transport: Transport,
    reading: Reading,
    *,
    request: Callable[[list[Piece]], tuple[str, Any]],
    take: Callable[[NDArray[np.int64], list[Piece], Answer], None],
    done: Callable[[int], object] | None,
    most: int | None = None,
) -> None:
    """Send all pieces of a reading to a server, and take its answers as they come.

    request: path and JSON for some pieces. most: pieces of one request; None is no bound. done:
    is told how many of the call's texts an answer finished.
    """
    lengths = np.array([len(piece.ids) for piece in reading.pieces], np.int64)
    budget = transport.connection.batch_tokens
    batches = [
        part
        for batch in plan_batches(lengths, budget=budget)
        for part in _split(batch, most or len(batch))
    ]
    copies = np.bincount(reading.given, minlength=len(reading.texts))
    counts = np.array([copies[p.text] if p.start == 0 else 0 for p in reading.pieces], np.int64)

    def requests() -> Iterator[Request]:
        for rows in batches:
            pieces = [reading.pieces[row] for row in rows]
            texts = [reading.texts[piece.text] for piece in pieces]
            yield Request(*request(pieces), about=about_texts(texts))

    for place, answer in transport.post_all(requests()):
        rows = batches[place]
        take(rows, [reading.pieces[row] for row in rows], answer)
        if done is not None:
            done(int(counts[rows].sum()))


def _split(rows: NDArray[np.int64], most: int) -> Iterator[NDArray[np.int64]]:
    for first in range(0, len(rows), most):
        yield rows[first : first + most]
