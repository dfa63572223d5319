"""What encoders have in common whose texts are read here, wherever their model runs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m3_retrievers.checks import check_texts
from m3_retrievers.encoder.base import BaseEncoder
from m3_retrievers.encoder.reading import Reader, Reading, encode_once, read_texts, token_counts
from m3_retrievers.encoder.recent import Keep
from m3_retrievers.encoder.settings import Settings
from m3_retrievers.encoder.viewing import view
from m3_retrievers.types.representations import Output, Representations
from m3_retrievers.types.tokens import TokenView


class ReadingEncoder(BaseEncoder):
    """An encoder from a tokenizer, and one method that makes outputs of what was read."""

    def __init__(self, settings: Settings, *, keep: Keep | None) -> None:
        super().__init__(keep=keep)
        self.settings = settings
        # an explanation looks at the same two texts for each output
        self._viewed = lru_cache(maxsize=8)(self._view)

    # What a kind of encoder adds

    @abstractmethod
    def _reader(self, *, query: bool) -> Reader:
        """Return what reads queries, or documents."""

    @abstractmethod
    def _represent(
        self,
        reading: Reading,
        outputs: tuple[Output, ...],
        done: Callable[[int], object],
        *,
        query: bool,
    ) -> Representations:
        """Return these outputs of the distinct texts of a reading, in their order.

        done: is told how many of the call's texts each batch finished.
        """

    @property
    def _end_vector(self) -> bool:
        """Whether the token behind a text (EOS) has a ColBERT vector."""
        return True

    # The members of an encoder

    @property
    def tokenizer(self) -> Any:
        """The transformers tokenizer of the model."""
        return self._reader(query=False).tokenizer

    def terms(self, ids: Sequence[int]) -> list[str]:
        """Return the vocabulary's spelling of sparse columns."""
        tokenizer = self._reader(query=False).tokenizer
        return list(tokenizer.convert_ids_to_tokens([int(id) for id in ids]))

    def measure(self, texts: Sequence[str], *, query: bool) -> NDArray[np.int64]:
        """Return (n,) how many tokens of each text enter the model, without running it.

        Warns and raises as encoding would.
        """
        return token_counts(self._read(check_texts(texts), query=query))

    def view(self, text: str, *, query: bool, output: Output | None = None) -> TokenView:  # noqa: ARG002
        """Return a text's tokens as the model reads them, each with its weight if there is one."""
        check_texts([text])
        return self._viewed(text, query)

    # Inside

    def _view(self, text: str, query: bool) -> TokenView:
        return view(
            self._reader(query=query),
            text,
            self._encode([text], query=query, outputs=("tokens",)).require("tokens")[0],
            query=query,
            settings=self.settings,
            vectors="colbert" in self.outputs,
            end_vector=self._end_vector,
        )

    def _read(self, texts: Sequence[str], *, query: bool, spans: bool = False) -> Reading:
        return read_texts(
            self._reader(query=query),
            texts,
            query=query,
            settings=self.settings,
            name=self.name,
            spans=spans,
        )

    def _encoded(
        self,
        reading: Reading,
        *,
        query: bool,
        outputs: tuple[Output, ...],
        show_progress: bool = False,
    ) -> Representations:
        """Return representations of a call's texts: what is kept, and the rest as it is made."""
        return encode_once(
            reading,
            partial(self._represent, query=query),
            query=query,
            outputs=outputs,
            has=self.outputs,
            recent=self._recent,
            show_progress=show_progress,
        )

    def _compute(
        self,
        texts: Sequence[str],
        *,
        query: bool,
        outputs: tuple[Output, ...],
        show_progress: bool,
    ) -> Representations:
        reading = self._read(texts, query=query, spans="tokens" in outputs)
        return self._encoded(reading, query=query, outputs=outputs, show_progress=show_progress)
