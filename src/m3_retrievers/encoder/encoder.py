"""M3Encoder: texts in, representations out, one forward pass for all three."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import torch

from m3_retrievers.encoder.checkpoint import Checkpoint, full_tokenizer, load_for_inference
from m3_retrievers.encoder.encoding import encode
from m3_retrievers.encoder.heads import HeadSpec
from m3_retrievers.encoder.lazy import Lazy
from m3_retrievers.encoder.pieces import Truncation
from m3_retrievers.encoder.precision import Precision, choose_precision
from m3_retrievers.encoder.reading import Reading
from m3_retrievers.encoder.reading_encoder import ReadingEncoder
from m3_retrievers.encoder.recent import Keep
from m3_retrievers.encoder.settings import Settings, check_settings, choose_device
from m3_retrievers.encoder.source import Pooling, Source, fingerprint, locate
from m3_retrievers.errors import InputError
from m3_retrievers.habits import guided
from m3_retrievers.scoring.crowd import crowd
from m3_retrievers.types.plan import HybridWeights
from m3_retrievers.types.representations import ALL_OUTPUTS, Output, Representations


@guided()
class M3Encoder(ReadingEncoder):
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
        precision: Precision | Literal["auto"] | None = None,
        keep: Keep | None = Keep(),  # noqa: B008  (frozen)
    ) -> None:
        if not isinstance(source, Source):
            raise InputError(
                f"M3Encoder expects a located model, got {source!r:.80}. Write "
                "M3Encoder.from_pretrained(…) with a hub id, a folder or 'm3-mini'."
            )
        super().__init__(check_settings(settings, pooling=source.pooling), keep=keep)
        self.source = source
        self.device = device or choose_device(None)
        self.precision = choose_precision(precision, self.device)
        self._model = Lazy(
            lambda: load_for_inference(self.source, device=self.device, precision=self.precision)
        )

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        device: str | torch.device | None = None,
        precision: Precision | Literal["auto"] | None = None,
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
        keep: Keep | None = Keep(),  # noqa: B008  (frozen)
    ) -> M3Encoder:
        """Return an encoder for a hub id, a folder, ``"m3-mini"`` or ``"m3-mini-multilingual"``.

        device: ``"cuda"``, ``"mps"``, ``"cpu"``, …; None takes the first. revision: of the hub's.
        precision: ``"fp32"``, ``"bf16"``, ``"fp16"``, ``"int8"``; ``"auto"`` is the fastest that
            loses under 0.001 nDCG@10, None fp16 on CUDA and else fp32. Outputs are float32.
        heads, pooling: for models laid out unlike BGE-M3.
        truncation: of a text over the limit: ``"warn"`` cuts it, with one TruncationWarning a
            call; ``"error"`` refuses it; ``"windows"`` encodes it by pieces into one row.
        query_max_length, document_max_length: tokens, special ones included, capped by
            what the model can take.
        query_instruction: put before every query (BGE-M3 needs none).
        truncate_dim: leading dimensions of the dense vector to keep, before normalising.
        mcls_every: a CLS before every so many tokens of a document (MCLS; the paper's 256).
        batch_tokens: tokens of a batch; None takes what suits the device.
        keep: of what was computed last, so that a chain runs the model once a text.

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
        return cls(source, settings, device=where, precision=precision, keep=keep)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle what it is made of: another process loads the model at its own first use."""
        made = partial(type(self), device=self.device, precision=self.precision, keep=self.keep)
        return made, (self.source, self.settings)

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
        return self._model.get()

    @cached_property
    def tokenizer(self) -> Any:
        """The transformers tokenizer of the model; encoding needs less of it."""
        return full_tokenizer(self.source)

    @property
    def vocabulary_size(self) -> int:
        """Width v of the sparse output."""
        return self.checkpoint.vocabulary_size

    @property
    def dimension(self) -> int:
        """Width h of the dense output."""
        hidden = self.checkpoint.hidden_size
        return min(hidden, self.settings.truncate_dim or hidden)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of everything that shapes a document's vectors; an index is bound to it.

        The precision is no part of it: a query in bf16 may be asked of an index in fp32, which
        notes its own, and the retriever's repr says where they differ.
        """
        shape = {name: asdict(self.settings)[name] for name in ("truncate_dim", "mcls_every")}
        return fingerprint(self.source, shape)

    def _reader(self, *, query: bool) -> Checkpoint:  # noqa: ARG002
        return self.checkpoint

    def _turn(self) -> AbstractContextManager[object]:
        return crowd().all_processors() if self.device.type == "cpu" else nullcontext()

    def _represent(
        self,
        reading: Reading,
        outputs: tuple[Output, ...],
        done: Callable[[int], object],
        *,
        query: bool,  # noqa: ARG002
    ) -> Representations:
        return encode(
            self.checkpoint, reading, outputs, done, settings=self.settings, device=self.device
        )

    def _renew_after_fork(self) -> bool:
        super()._renew_after_fork()
        self._model.renew_lock()
        return self._model.loaded
