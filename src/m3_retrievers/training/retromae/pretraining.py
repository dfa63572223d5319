"""RetroMAE: pre-training that makes one vector hold a whole text (arXiv 2205.12035).

The encoder reads a text with 30 % of its words masked and gives one vector; a decoder of a
single layer, which sees that vector and each time another half of the tokens, has to predict
every token ("enhanced decoding"). The loss is the decoder's cross-entropy plus the encoder's own
masked-word loss. Works for BERT and XLM-RoBERTa on transformers 5.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import set_seed

from m3_retrievers.checks import check_texts
from m3_retrievers.encoder.batching import plan_batches
from m3_retrievers.encoder.checkpoint import Checkpoint, load
from m3_retrievers.encoder.forward import pad
from m3_retrievers.encoder.heads import HeadSpec
from m3_retrievers.encoder.pieces import Piece, cut, tokenize
from m3_retrievers.encoder.pretrained import load_masked_model, quiet_transformers
from m3_retrievers.encoder.source import CONFIG_FILE, Source, locate
from m3_retrievers.errors import CheckpointError, InputError, TrainingDataError
from m3_retrievers.training.gather import world
from m3_retrievers.training.guards import check_loss
from m3_retrievers.training.loop import Job, batches_needed, run_job
from m3_retrievers.training.retromae.decoding import MaskedBatch, RetroMAELosses, RetroMAEModule
from m3_retrievers.training.retromae.masking import Vocabulary, mask_words

# Backbones whose embeddings, and way to count positions, the decoder knows.
_KINDS = ("bert", "roberta", "xlm-roberta")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetroMAESettings:
    """One pre-training run.

    model: a BERT or XLM-RoBERTa, as in TrainSettings. out: the folder the backbone is saved to.
    encoder_mask, decoder_mask: shares of what each must do without. max_length: tokens of a
    piece; longer texts become several. tokens: padded tokens a batch. The rest as in
    TrainSettings.
    """

    model: str
    out: str
    encoder_mask: float = 0.3
    decoder_mask: float = 0.5
    max_length: int = 512
    tokens: int = 8192
    steps: int = 1000
    accumulate: int = 1
    learning_rate: float = 7e-5
    head_learning_rate: float | None = None
    warmup_share: float = 0.1
    weight_decay: float = 0.01
    seed: int = 0
    save_every: int = 200
    log_every: int = 10
    workers: int = 0

    def __post_init__(self) -> None:
        for name in ("encoder_mask", "decoder_mask"):
            if not 0 < getattr(self, name) < 1:
                raise InputError(
                    f"{name} expects a share between 0 and 1, got {getattr(self, name)!r}."
                )
        least = {"max_length": 4, "tokens": 1, "steps": 1, "accumulate": 1}
        for name, bound in {**least, "save_every": 1, "log_every": 1}.items():
            if getattr(self, name) < bound:
                raise InputError(f"{name} expects at least {bound}, got {getattr(self, name)!r}.")


@dataclass(frozen=True, slots=True)
class Pretrained:
    """Where the backbone lies, and the figures logged on the way."""

    folder: Path
    log: tuple[Mapping[str, float], ...]


def pretrain(
    settings: RetroMAESettings,
    texts: Iterable[str],
    *,
    resume: bool = True,
    show_progress: bool = False,
) -> Pretrained:
    """Pre-train a backbone on raw texts and save it, for ``train`` and M3Encoder to load.

    A checkpoint without a masked-language head gets a new one, tied to its embeddings. resume: go
    on from the last complete checkpoint in ``settings.out``, if there is one. Raises
    TrainingDataError where no text holds a token, CheckpointError for another architecture,
    InputError where ``max_length`` is more than the model has, or the checkpoint was made with
    other settings or texts.
    """
    checked = check_texts(texts if isinstance(texts, Sequence) else list(texts))
    set_seed(settings.seed)
    source = locate_backbone(settings.model)
    model, module = open_module(source, settings)
    module.train()
    pieces = _pieces(model, checked, settings)
    job = Job(
        module=module,
        plan=_Plan(pieces, settings),
        collate=_Masker(model, settings),
        run=_step,
        settings=settings,
        described={**asdict(settings), "texts": _digest(pieces)},
    )
    log = run_job(job, resume=resume, show_progress=show_progress)
    out = Path(settings.out)
    if world()[0] == 0:
        _save(module, model.tokenizer, source, out)
    return Pretrained(out, log)


def locate_backbone(model: str) -> Source:
    """Return where a backbone lies, whatever heads it has."""
    return locate(model, heads=HeadSpec(sparse=False, colbert="identity"))


def open_module(source: Source, settings: RetroMAESettings) -> tuple[Checkpoint, RetroMAEModule]:
    """Return the checkpoint and the module that trains its backbone, in float32.

    Raises CheckpointError for what is incomplete, or no BERT or XLM-RoBERTa.
    """
    if source.adapter is not None:
        raise CheckpointError(
            f"{source.name!r} is a delta on {source.adapter.backbone!r}; RetroMAE trains a whole "
            "backbone. Give that one."
        )
    model = load(source, device=torch.device("cpu"), dtype=torch.float32)
    kind = model.backbone.config.model_type  # type: ignore[union-attr]
    if kind not in _KINDS or model.tokenizer.mask_token_id is None:
        raise CheckpointError(
            f"RetroMAE expects a BERT or an XLM-RoBERTa whose tokenizer has a mask token, got "
            f"{kind!r} with the mask token {model.tokenizer.mask_token!r}. Choose such a backbone."
        )
    if settings.max_length > model.max_length:
        raise InputError(
            f"max_length expects at most {model.max_length} tokens, which is what {source.name!r} "
            f"reads, got {settings.max_length}. Lower it; longer texts become several pieces."
        )
    masked = load_masked_model(source.folder)
    # the backbone as load() checked it; the head is the folder's own, or new where it has none
    setattr(masked, masked.base_model_prefix, model.backbone)
    masked.tie_weights()
    module = RetroMAEModule(masked, decoder_mask=settings.decoder_mask, pooling=source.pooling)
    return model, module


def _pieces(model: Checkpoint, texts: Sequence[str], settings: RetroMAESettings) -> list[Piece]:
    """Return the texts as pieces of at most ``max_length`` tokens, without those that have none."""
    tokens = [one for one in tokenize(model.tokenizer, texts) if len(one.ids)]
    if not tokens:
        raise TrainingDataError(
            f"Pre-training expects texts with tokens, got {len(texts)} without any. Give raw texts."
        )
    return cut(tokens, model.frame, max_length=settings.max_length, truncation="windows")


def _digest(pieces: Sequence[Piece]) -> str:
    """Return what tells one list of texts from another."""
    sha = hashlib.sha256()
    for piece in pieces:
        sha.update(piece.ids.tobytes())
    return sha.hexdigest()


class _Plan(Sequence[tuple[int, list[Piece]]]):
    """Batches of similar lengths within a budget of tokens, in an order the seed decides."""

    def __init__(self, pieces: Sequence[Piece], settings: RetroMAESettings) -> None:
        self._pieces = pieces
        lengths = np.array([len(piece.ids) for piece in pieces], np.int64)
        self._batches: list[np.ndarray[Any, np.dtype[np.int64]]] = []
        needed, epoch = batches_needed(settings), 0
        while len(self._batches) < needed:
            rng = np.random.default_rng([settings.seed, epoch])
            shuffled = rng.permutation(len(pieces))
            batches = plan_batches(lengths[shuffled], budget=settings.tokens)
            self._batches += [shuffled[batches[at]] for at in rng.permutation(len(batches))]
            epoch += 1
        self._batches = self._batches[:needed]

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, step: int) -> tuple[int, list[Piece]]:  # type: ignore[override]
        # the step goes along: it decides the encoder's mask
        return step, [self._pieces[row] for row in self._batches[step]]


class _Masker:
    """Turns the pieces of a step into a masked batch."""

    def __init__(self, model: Checkpoint, settings: RetroMAESettings) -> None:
        self._vocabulary = Vocabulary.of(model.tokenizer, model.vocabulary_size)
        self._pad_id = model.pad_id
        self._frame = (len(model.frame.before), len(model.frame.after))
        self._settings = settings

    def __call__(self, item: tuple[int, Sequence[Piece]]) -> MaskedBatch:
        step, pieces = item
        clean = pad(pieces, pad_id=self._pad_id, device=torch.device("cpu"))
        shown, masked = clean.ids.clone(), torch.zeros_like(clean.mask)
        rng = np.random.default_rng([self._settings.seed, 1, step])
        share = self._settings.encoder_mask
        for row, piece in enumerate(pieces):
            ids, gone = mask_words(piece.ids, self._vocabulary, share, rng, frame=self._frame)
            shown[row, : len(ids)] = torch.from_numpy(ids)
            masked[row, : len(ids)] = torch.from_numpy(gone)
        return MaskedBatch(clean, shown, masked)


def _step(module: nn.Module, batch: MaskedBatch, done: int) -> tuple[Tensor, Mapping[str, float]]:
    losses: RetroMAELosses = module(batch.to(next(module.parameters()).device))
    check_loss(float(losses.total.detach()), step=done)
    return losses.total, {
        "encoder": float(losses.encoder.detach()),
        "decoder": float(losses.decoder.detach()),
        "texts": float(len(batch.shown)),
    }


def _save(module: RetroMAEModule, tokenizer: Any, source: Source, out: Path) -> None:
    """Write the backbone without decoder and masked-language head, as a model without heads."""
    out.mkdir(parents=True, exist_ok=True)
    with quiet_transformers():
        module.backbone.save_pretrained(out)
    tokenizer.save_pretrained(out)
    config: dict[str, Any] = {
        "pooling": source.pooling,
        "heads": {"sparse": False, "colbert": "identity"},
        "weights": asdict(source.weights),
    }
    if source.max_length is not None:
        config["max_length"] = source.max_length
    (out / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", "utf-8")
