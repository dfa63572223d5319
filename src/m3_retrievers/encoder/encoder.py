"""M3Encoder: texts in, representations out, one forward pass for all three."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from m3_retrievers import scoring
from m3_retrievers.checks import check_k, check_text, check_texts
from m3_retrievers.encoder import forking
from m3_retrievers.encoder.checkpoint import Checkpoint, load
from m3_retrievers.encoder.coalesce import Coalesced
from m3_retrievers.encoder.distinct import distinct_pairs
from m3_retrievers.encoder.encoding import encode, progress
from m3_retrievers.encoder.heads import HeadSpec
from m3_retrievers.encoder.pieces import Truncation
from m3_retrievers.encoder.settings import (
    DType,
    Settings,
    check_settings,
    choose_device,
    choose_dtype,
    choose_outputs,
)
from m3_retrievers.encoder.source import Pooling, Source, fingerprint, locate
from m3_retrievers.errors import InputError
from m3_retrievers.habits import guided
from m3_retrievers.names import OF_ENCODERS
from m3_retrievers.types.plan import HybridWeights, check_weights
from m3_retrievers.types.representations import ALL_OUTPUTS, Output, Representations
from m3_retrievers.types.scores import Scores


@guided(**OF_ENCODERS)
class M3Encoder:
    """BGE-M3 and models of its kind; made by ``from_pretrained``, loaded at first use.

    Safe to share between threads: the model is loaded once, and concurrent calls of
    ``encode_query`` share forward passes.
    """

    def __init__(
        self,
        source: Source,
        settings: Settings | None = None,
        *,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if not isinstance(source, Source):
            raise InputError(
                f"M3Encoder expects a located model, got {source!r:.80}. Write "
                "M3Encoder.from_pretrained(…) with a hub id, a folder or 'm3-mini'."
            )
        self.source = source
        self.settings = check_settings(settings, pooling=source.pooling)
        self.device = device or choose_device(None)
        self.dtype = dtype or choose_dtype("auto", self.device)
        self._loading = threading.Lock()
        self._checkpoint: Checkpoint | None = None
        self._shared: dict[tuple[Output, ...], Coalesced[str, Representations]] = {}
        forking.watch(self)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        device: str | torch.device | None = None,
        dtype: DType = "auto",
        revision: str | None = None,
        heads: HeadSpec | None = None,
        pooling: Pooling | None = None,
        truncation: Truncation = "warn",
        query_max_length: int = 512,
        document_max_length: int = 8192,
        query_instruction: str = "",
        truncate_dim: int | None = None,
        mcls_every: int | None = None,
        batch_tokens: int | None = None,
    ) -> M3Encoder:
        """Return an encoder for a hub id, a model folder, or ``"m3-mini"``.

        device: ``"cuda"``, ``"mps"``, ``"cpu"``, …; None takes the first that is there.
        dtype: of the backbone; ``"auto"`` is float16 on CUDA and float32 elsewhere. Outputs are
            always float32. revision: of the hub repository.
        heads, pooling: only for models that are laid out unlike BGE-M3.
        truncation: what happens to a text over the limit: ``"warn"`` cuts it, with one
            TruncationWarning a call; ``"error"`` refuses it; ``"windows"`` encodes it piece
            by piece into one row.
        query_max_length, document_max_length: tokens, special ones included, capped by
            what the model can take.
        query_instruction: put before every query (BGE-M3 needs none).
        truncate_dim: leading dimensions of the dense vector to keep, before normalising.
        mcls_every: put a CLS before every so many tokens of a document, and pool them all
            (the paper's MCLS uses 256); see ``encoder.pieces`` for its choices.
        batch_tokens: tokens of a padded batch; None takes what suits the device.

        A model gives numbers and a vocabulary: its Python code is never run nor asked about, no
        pickle is executed, no kernels are fetched. Raises CheckpointError (MissingHeadError,
        HeadShapeError) for a model that is not whole, InputError for an option.
        """
        source = locate(name_or_path, revision=revision, heads=heads, pooling=pooling)
        settings = Settings(
            truncation=truncation,
            query_max_length=query_max_length,
            document_max_length=document_max_length,
            query_instruction=query_instruction,
            truncate_dim=truncate_dim,
            mcls_every=mcls_every,
            batch_tokens=batch_tokens,
        )
        where = choose_device(device)
        return cls(source, settings, device=where, dtype=choose_dtype(dtype, where))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle what it is made of: another process loads the model at its own first use."""
        made = partial(type(self), device=self.device, dtype=self.dtype)
        return made, (self.source, self.settings)

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> M3Encoder:
        """Return the encoder itself: it never changes, and gigabytes are not copied in passing."""
        return self

    __copy__ = __deepcopy__

    def __repr__(self) -> str:
        return f"M3Encoder({self.name!r}, outputs={self.outputs}, device={str(self.device)!r})"

    @property
    def name(self) -> str:
        """The hub id, folder or name the model was asked for by."""
        return self.source.name

    @property
    def outputs(self) -> tuple[Output, ...]:
        """The representations this model has; known without loading it."""
        heads = self.source.heads
        has = {"dense": True, "sparse": heads.sparse, "colbert": heads.colbert}
        return tuple(name for name in ALL_OUTPUTS if has[name])

    @property
    def default_weights(self) -> HybridWeights:
        """The hybrid weights this model was published with."""
        return self.source.weights

    @property
    def checkpoint(self) -> Checkpoint:
        """The loaded model; the first use loads it, whichever thread comes first."""
        with self._loading:
            if self._checkpoint is None:
                self._checkpoint = load(self.source, device=self.device, dtype=self.dtype)
            return self._checkpoint

    @property
    def tokenizer(self) -> Any:
        """The transformers tokenizer of the model."""
        return self.checkpoint.tokenizer

    @property
    def vocabulary_size(self) -> int:
        """Width v of the sparse output."""
        return self.checkpoint.vocabulary_size

    @property
    def dimension(self) -> int:
        """Width h of the dense output."""
        hidden = int(self.checkpoint.backbone.config.hidden_size)  # type: ignore[union-attr,arg-type]
        return min(hidden, self.settings.truncate_dim or hidden)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of everything that shapes a document's vectors; an index is bound to it."""
        shape = {name: asdict(self.settings)[name] for name in ("truncate_dim", "mcls_every")}
        return fingerprint(self.source, shape)

    def encode_queries(
        self,
        texts: Sequence[str],
        *,
        outputs: Sequence[Output] | None = None,
        show_progress: bool = False,
    ) -> Representations:
        """Return representations of n queries, in their order; only the outputs asked for.

        outputs: any of ``"dense"``, ``"sparse"``, ``"colbert"``, ``"tokens"``; None is all the
        model has (without tokens). Equal texts have equal rows. A text of unknown tokens alone
        scores 0: its dense row is 0, without terms and vectors (UnknownTokenWarning).

        Raises InputError for what is no string, MissingHeadError for an output the model lacks,
        TextTooLongError under ``truncation="error"``.
        """
        return self._encode(texts, query=True, outputs=outputs, show_progress=show_progress)

    def encode_documents(
        self,
        texts: Sequence[str],
        *,
        outputs: Sequence[Output] | None = None,
        show_progress: bool = False,
    ) -> Representations:
        """Return representations of n documents; arguments as for ``encode_queries``."""
        return self._encode(texts, query=False, outputs=outputs, show_progress=show_progress)

    def encode_query(
        self, text: str, *, outputs: Sequence[Output] | None = None
    ) -> Representations:
        """Return representations of one query, a record of one row.

        Threads that call this at the same time share a forward pass.
        """
        check_text(text)
        wanted = choose_outputs(outputs, has=self.outputs, model=self.name)
        with self._loading:
            run = partial(self._queries_apart, outputs=wanted)
            shared = self._shared.setdefault(wanted, Coalesced(run))
        return shared(text)

    def iter_documents(
        self,
        texts: Iterable[str],
        *,
        outputs: Sequence[Output] | None = None,
        batch_size: int = 1024,
        show_progress: bool = False,
    ) -> Iterator[Representations]:
        """Yield representations of ``batch_size`` documents at a time, in order.

        For corpora that do not fit in memory: ``texts`` may be a generator, and is read no
        further than the batch at hand.
        """
        check_k(batch_size, name="batch_size")
        if isinstance(texts, str) or not isinstance(texts, Iterable):
            check_texts(texts)  # raises
        source = iter(texts)
        with progress(show=show_progress) as done:
            while batch := list(islice(source, batch_size)):
                yield self.encode_documents(batch, outputs=outputs)
                done(len(batch))

    def score_pairs(
        self,
        pairs: Sequence[tuple[str, str]],
        *,
        weights: HybridWeights | None = None,
    ) -> Scores:
        """Return the scores of n (query, document) pairs, each a float32 array (n,).

        Equal to FlagEmbedding's ``compute_score``, which names the fields. weights: None is
        the model's own. A text that occurs in several pairs is encoded once.
        """
        weighted = check_weights(weights, default=self.default_weights)
        split = distinct_pairs(pairs)
        return scoring.pair_scores(
            self.encode_queries(split.queries),
            self.encode_documents(split.documents),
            split.q_rows,
            split.d_rows,
            weights=weighted,
        )

    def _queries_apart(
        self, texts: Sequence[str], *, outputs: tuple[Output, ...]
    ) -> list[Representations]:
        encoded = self._encode(texts, query=True, outputs=outputs)
        return [encoded[row] for row in range(len(texts))]

    def _encode(
        self,
        texts: Sequence[str],
        *,
        query: bool,
        outputs: Sequence[Output] | None,
        show_progress: bool = False,
    ) -> Representations:
        checked = check_texts(texts)
        wanted = choose_outputs(outputs, has=self.outputs, model=self.name)
        return encode(
            self.checkpoint,
            checked,
            query=query,
            outputs=wanted,
            settings=self.settings,
            device=self.device,
            name=self.name,
            show_progress=show_progress,
        )

    def _renew_after_fork(self) -> bool:
        """Drop what threads of the parent may hold locked; return whether the model is loaded."""
        self._loading = threading.Lock()
        self._shared = {}
        return self._checkpoint is not None
