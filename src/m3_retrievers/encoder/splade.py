"""SpladeEncoder: learned sparse retrieval by a masked-language model's own vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import torch

from m3_retrievers.checks import check_k
from m3_retrievers.encoder.lazy import Lazy
from m3_retrievers.encoder.pieces import Truncation
from m3_retrievers.encoder.precision import DTYPES, Precision
from m3_retrievers.encoder.reading import Reading
from m3_retrievers.encoder.reading_encoder import ReadingEncoder
from m3_retrievers.encoder.recent import Keep
from m3_retrievers.encoder.settings import (
    DType,
    Settings,
    choose_budget,
    choose_device,
    choose_dtype,
)
from m3_retrievers.encoder.source import find_folder
from m3_retrievers.encoder.splade_encoding import encode_terms
from m3_retrievers.encoder.splade_model import SpladeModel, load_splade
from m3_retrievers.encoder.splade_source import (
    ACTIVATIONS,
    POOLINGS,
    SpladeActivation,
    SpladePooling,
    SpladeSource,
    check_choice,
    find_table,
    fingerprint_of,
    read_layout,
)
from m3_retrievers.encoder.viewing import tokens_of, unseen_tokens
from m3_retrievers.errors import MissingHeadError
from m3_retrievers.habits import guided
from m3_retrievers.types.plan import HybridWeights
from m3_retrievers.types.representations import Output, Representations
from m3_retrievers.types.tokens import TokenView


@guided()
class SpladeEncoder(ReadingEncoder):
    """A SPLADE model: sparse alone; made by ``from_pretrained``, loaded at first use.

    A text's terms need not stand in it: the model adds those it expects beside them. Equal to
    sentence-transformers' SparseEncoder within 1e-5, whose folders it reads (routers too), as
    well as plain transformers' and OpenSearch's. Safe to share between threads.
    """

    def __init__(
        self,
        name: str,
        queries: SpladeSource,
        documents: SpladeSource,
        *,
        pooling: SpladePooling | None = None,
        activation: SpladeActivation | None = None,
        top_terms: int | None = None,
        settings: Settings | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
        keep: Keep | None = Keep(),  # noqa: B008  (frozen)
    ) -> None:
        super().__init__(settings or Settings(document_max_length=512), keep=keep)
        check_choice("pooling", pooling, POOLINGS)
        check_choice("activation", activation, ACTIVATIONS)
        if top_terms is not None:
            check_k(top_terms, name="top_terms")
        self._name = name
        self.sources = (queries, documents)
        self.pooling, self.activation, self.top_terms = pooling, activation, top_terms
        self.device = device or choose_device(None)
        self.dtype = dtype or choose_dtype("auto", self.device)
        self._documents = Lazy(partial(self._load, documents))
        # one folder for both is loaded once
        same = queries == documents
        self._queries = self._documents if same else Lazy(partial(self._load, queries))

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        documents: str | Path | None = None,
        query_weights: Literal["ones"] | str | Path | None = None,
        pooling: SpladePooling | None = None,
        activation: SpladeActivation | None = None,
        top_terms: int | None = None,
        device: str | torch.device | None = None,
        dtype: DType = "auto",
        revision: str | None = None,
        truncation: Truncation = "warn",
        query_max_length: int = 512,
        document_max_length: int = 512,
        batch_tokens: int | None = None,
        keep: Keep | None = Keep(),  # noqa: B008  (frozen)
    ) -> SpladeEncoder:
        """Return an encoder for a hub id or a folder; what is not named is as for ``M3Encoder``.

        documents: another model for documents (efficient SPLADE has two).
        query_weights: queries without a model: ``"ones"`` weighs each token 1 (SPLADE-doc), a
            JSON file {token: weight} as it says (OpenSearch); None takes what the folder holds.
        pooling: ``"max"`` or ``"sum"``; activation: ``"relu"`` or ``"log1p_relu"``; None is the
            folder's, else the first. top_terms: of a document, the largest kept.

        Raises CheckpointError for a model that is not whole, InputError for an option.
        """
        queries, read = read_layout(find_folder(name_or_path, revision))
        docs = read if documents is None else read_layout(find_folder(documents, None))[1]
        if query_weights is not None:
            queries = replace(queries, folder=None, table=find_table(query_weights))
        where = choose_device(device)
        return cls(
            str(name_or_path),
            queries,
            docs,
            pooling=pooling,
            activation=activation,
            top_terms=top_terms,
            settings=Settings(
                truncation=truncation,
                query_max_length=query_max_length,
                document_max_length=document_max_length,
                batch_tokens=batch_tokens,
            ),
            device=where,
            dtype=choose_dtype(dtype, where),
            keep=keep,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle what it is made of: another process loads the model at its own first use."""
        made = partial(
            type(self),
            pooling=self.pooling,
            activation=self.activation,
            top_terms=self.top_terms,
            settings=self.settings,
            device=self.device,
            dtype=self.dtype,
            keep=self.keep,
        )
        return made, (self._name, *self.sources)

    @property
    def name(self) -> str:
        """The hub id or folder the model was asked for by."""
        return self._name

    @property
    def outputs(self) -> tuple[Output, ...]:
        """``("sparse",)``."""
        return ("sparse",)

    @property
    def default_weights(self) -> HybridWeights:
        """The lexical score alone."""
        return HybridWeights(dense=0, sparse=1, colbert=0)

    @property
    def precision(self) -> Precision | None:
        """In which numbers the models compute; None for a dtype without a name here."""
        return next((name for name, dtype in DTYPES.items() if dtype == self.dtype), None)

    @property
    def dimension(self) -> int:
        """Raise MissingHeadError: a SPLADE model makes no dense vectors."""
        raise MissingHeadError(
            f"{self.name!r} makes no dense vectors. Take them from another model: "
            "CombinedEncoder(dense=…, sparse=…)."
        )

    @property
    def vocabulary_size(self) -> int:
        """Width v of the sparse output."""
        return self._documents.get().vocabulary_size

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of everything that shapes a document's terms; an index is bound to it."""
        documents = self.sources[1]
        shape = [self._pooling(documents), self._activation(documents), self.top_terms]
        return fingerprint_of(documents, shape)

    # Inside

    def _view(self, text: str, query: bool) -> TokenView:
        reading = self._read([text], query=query, spans=True)
        [row] = self._encoded(reading, query=query, outputs=self.outputs).to_dicts()
        seen = tokens_of(reading.tokens[0], reading.pieces[-1].stop, row)
        cut = unseen_tokens(
            self._reader(query=query), text, len(seen), query=query, settings=self.settings
        )
        return TokenView(seen, cut)

    def _compute(
        self,
        texts: Sequence[str],
        *,
        query: bool,
        outputs: tuple[Output, ...],
        show_progress: bool,
    ) -> Representations:
        if "tokens" in outputs:
            raise MissingHeadError(
                f"The output 'tokens' is not made by {self.name!r}. Use view(text, query=…)."
            )
        return super()._compute(texts, query=query, outputs=outputs, show_progress=show_progress)

    def _reader(self, *, query: bool) -> SpladeModel:
        return (self._queries if query else self._documents).get()

    def _represent(
        self,
        reading: Reading,
        outputs: tuple[Output, ...],  # noqa: ARG002
        done: Callable[[int], object],
        *,
        query: bool,
    ) -> Representations:
        return encode_terms(
            self._reader(query=query),
            reading,
            done,
            vocabulary_size=self.vocabulary_size,
            top_terms=None if query else self.top_terms,
            budget=choose_budget(self.settings.batch_tokens, self.device),
            device=self.device,
        )

    def _load(self, source: SpladeSource) -> SpladeModel:
        return load_splade(
            source,
            pooling=self._pooling(source),
            activation=self._activation(source),
            device=self.device,
            dtype=self.dtype,
        )

    def _pooling(self, source: SpladeSource) -> SpladePooling:
        return self.pooling or source.pooling or "max"

    def _activation(self, source: SpladeSource) -> SpladeActivation:
        return self.activation or source.activation or "relu"

    def _renew_after_fork(self) -> bool:
        super()._renew_after_fork()
        self._queries.renew_lock()
        self._documents.renew_lock()
        return self._queries.loaded or self._documents.loaded
