"""RetroMAE: pre-training that makes one vector hold a whole text (arXiv 2205.12035).

The encoder reads a text with 30 % of its words masked and gives one vector; a decoder of a
single layer, which sees that vector and each time another half of the tokens, has to predict
every token ("enhanced decoding"). The loss is the decoder's cross-entropy plus the encoder's own
masked-word loss. Works for BERT and XLM-RoBERTa on transformers 5.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import AutoModelForMaskedLM, set_seed

from m3_retrievers.encoder.batching import plan_batches
from m3_retrievers.encoder.checkpoint import CONFIG_FILE, Source, locate, quiet_transformers
from m3_retrievers.encoder.forward import Padded, pad, pool
from m3_retrievers.encoder.heads import HeadSpec
from m3_retrievers.encoder.pieces import Piece, check_texts, cut, find_frame, tokenize
from m3_retrievers.errors import CheckpointError, InputError, TrainingDataError
from m3_retrievers.training.guards import check_loss
from m3_retrievers.training.loop import Job, batches_needed, run_job
from m3_retrievers.training.masking import Vocabulary, mask_words, visible_rows

# Hidden states turned into logits at once: 1,024 of them over 250,002 pieces are 1 GB.
_LOGITS_AT_ONCE = 1024


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

    def __post_init__(self) -> None:
        for name in ("encoder_mask", "decoder_mask"):
            if not 0 < getattr(self, name) < 1:
                raise InputError(
                    f"{name} expects a share between 0 and 1, got {getattr(self, name)!r}."
                )
        for name, least in (("max_length", 4), ("tokens", 1), ("steps", 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name} expects at least {least}, got {getattr(self, name)!r}.")


@dataclass(frozen=True, slots=True)
class Pretrained:
    """Where the backbone lies, and the figures logged on the way."""

    folder: Path
    log: tuple[Mapping[str, float], ...]


@dataclass(frozen=True, slots=True, eq=False)
class MaskedBatch:
    """Pieces as they are and as the encoder reads them; masked: (b, l) what it must predict."""

    clean: Padded
    shown: Tensor
    masked: Tensor


def pretrain(
    settings: RetroMAESettings,
    texts: Iterable[str],
    *,
    resume: bool = True,
    show_progress: bool = False,
) -> Pretrained:
    """Pre-train a backbone on raw texts and save it, for ``train`` and M3Encoder to load.

    A checkpoint without a masked-language head gets a new one, tied to its embeddings. Raises
    TrainingDataError where no text holds a token, CheckpointError for another architecture.
    """
    set_seed(settings.seed)
    source = locate_backbone(settings.model)
    tokenizer, module = open_module(source, settings)
    module.train()
    pieces = _pieces(tokenizer, check_texts(list(texts)), settings)
    job = Job(
        module=module,
        plan=_Plan(pieces, settings),
        collate=_Masker(tokenizer, module, settings),
        run=_step,
        settings=settings,
        described=asdict(settings),
    )
    log = run_job(job, resume=resume, show_progress=show_progress)
    return Pretrained(_save(module, tokenizer, source, Path(settings.out)), log)


class RetroMAEModule(nn.Module):
    """The encoder with its masked-language head, and the one-layer decoder."""

    def __init__(self, masked_model: Any, settings: RetroMAESettings, pooling: str) -> None:
        super().__init__()
        self.model = masked_model
        self.pooling = pooling
        self.settings = settings
        config = masked_model.config
        self.decoder = DecoderLayer(
            config.hidden_size, config.num_attention_heads, config.intermediate_size
        )
        for name, parameter in self.backbone.named_parameters():
            if "pooler" in name.split("."):
                parameter.requires_grad_(False)

    @property
    def backbone(self) -> Any:
        """The encoder that is kept."""
        return self.model.base_model

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def forward(self, batch: MaskedBatch) -> tuple[Tensor, Tensor]:
        """Return the encoder's and the decoder's mean loss over the tokens each predicts."""
        clean = batch.clean
        hidden = self.backbone(
            input_ids=batch.shown, attention_mask=clean.mask.long()
        ).last_hidden_state
        encoder = self._loss(hidden[batch.masked], clean.ids[batch.masked])
        places = clean.heads if self.pooling == "cls" else clean.mask
        sentence = pool(hidden, places)
        predicted = clean.mask & ~clean.heads
        predicted[torch.arange(len(predicted)), clean.mask.sum(1) - 1] = False  # SEP
        decoded = self.decode(sentence, clean)
        return encoder, self._loss(decoded[predicted], clean.ids[predicted])

    def decode(self, sentence: Tensor, clean: Padded) -> Tensor:
        """Return (b, l, h): each position rebuilt from the sentence's vector and its own view."""
        embeddings = self.backbone.embeddings
        stream = embeddings(input_ids=clean.ids)
        stream = torch.cat([sentence[:, None], stream[:, 1:]], dim=1)
        length = clean.ids.shape[1]
        # RoBERTa's family counts positions from padding + 1
        first = self.backbone.config.pad_token_id + 1 if "roberta" in self._kind else 0
        positions = torch.arange(first, first + length, device=clean.ids.device)
        queries = sentence[:, None] + embeddings.position_embeddings(positions)
        seen = visible_rows(clean.mask, self.settings.decoder_mask, None)
        decoded: Tensor = self.decoder(queries, stream, seen)
        return decoded

    @property
    def _kind(self) -> str:
        return str(self.backbone.config.model_type)

    def _loss(self, hidden: Tensor, wanted: Tensor) -> Tensor:
        """Return the mean cross-entropy of hidden states (t, h), some logits at a time."""
        head = self.model.cls if hasattr(self.model, "cls") else self.model.lm_head

        def part(states: Tensor, ids: Tensor) -> Tensor:
            return functional.cross_entropy(head(states).float(), ids, reduction="sum")

        sums = [
            checkpoint(part, states, ids, use_reentrant=False)
            for states, ids in zip(
                torch.split(hidden, _LOGITS_AT_ONCE),
                torch.split(wanted, _LOGITS_AT_ONCE),
                strict=True,
            )
        ]
        return torch.stack(sums).sum() / max(1, len(wanted))


class DecoderLayer(nn.Module):
    """One transformer layer whose queries and keys come from different streams."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.up = nn.Linear(width, inner)
        self.down = nn.Linear(inner, width)
        self.norm_attention = nn.LayerNorm(width)
        self.norm_out = nn.LayerNorm(width)

    def forward(self, queries: Tensor, stream: Tensor, seen: Tensor) -> Tensor:
        """Return (b, l, h) from queries and stream (b, l, h) under the mask seen (b, l, l)."""
        q, k, v = (
            part(states).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (b, heads, l, h/heads)
            for part, states in ((self.query, queries), (self.key, stream), (self.value, stream))
        )
        attended = functional.scaled_dot_product_attention(q, k, v, attn_mask=seen[:, None])
        mixed = self.norm_attention(queries + self.out(attended.transpose(1, 2).flatten(2)))
        result: Tensor = self.norm_out(mixed + self.down(functional.gelu(self.up(mixed))))
        return result


def locate_backbone(model: str) -> Source:
    """Return where a backbone lies, whatever heads it has."""
    return locate(model, heads=HeadSpec(sparse=False, colbert="identity"))


def open_module(source: Source, settings: RetroMAESettings) -> tuple[Any, RetroMAEModule]:
    """Return the tokenizer and the module. Raises CheckpointError for what is no BERT or XLM-R."""
    from transformers import AutoTokenizer

    if source.adapter is not None:
        raise CheckpointError(
            f"{source.name!r} is a delta on {source.adapter.backbone!r}; RetroMAE trains a whole "
            "backbone. Give that one."
        )
    with quiet_transformers():
        try:
            model = AutoModelForMaskedLM.from_pretrained(source.folder, local_files_only=True)
        except (OSError, ValueError, KeyError) as error:
            raise CheckpointError(
                f"{source.folder} cannot be loaded with a masked-language head: {error}"
            ) from error
        tokenizer = AutoTokenizer.from_pretrained(source.folder, local_files_only=True)
    if not (hasattr(model, "cls") or hasattr(model, "lm_head")) or tokenizer.mask_token_id is None:
        raise CheckpointError(
            f"RetroMAE expects a BERT or an XLM-RoBERTa, got {type(model).__name__}."
        )
    return tokenizer, RetroMAEModule(model, settings, source.pooling)


def _pieces(tokenizer: Any, texts: Sequence[str], settings: RetroMAESettings) -> list[Piece]:
    """Return the texts as pieces of at most ``max_length`` tokens, without those that have none."""
    tokens = [one for one in tokenize(tokenizer, texts) if len(one.ids)]
    if not tokens:
        raise TrainingDataError(
            f"Pre-training expects texts with tokens, got {len(texts)} without any. Give raw texts."
        )
    frame = find_frame(tokenizer)
    return cut(tokens, frame, max_length=settings.max_length, truncation="windows")


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

    def __init__(self, tokenizer: Any, module: RetroMAEModule, settings: RetroMAESettings) -> None:
        self._vocabulary = Vocabulary.of(tokenizer, module.backbone.config.vocab_size)
        self._pad_id = tokenizer.pad_token_id
        frame = find_frame(tokenizer)
        self._frame = (len(frame.before), len(frame.after))
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
    device = next(module.parameters()).device
    clean = batch.clean
    moved = MaskedBatch(
        Padded(clean.ids.to(device), clean.mask.to(device), clean.heads.to(device)),
        batch.shown.to(device),
        batch.masked.to(device),
    )
    encoder, decoder = module(moved)
    total = encoder + decoder
    check_loss(float(total.detach()), step=done)
    return total, {
        "encoder": float(encoder.detach()),
        "decoder": float(decoder.detach()),
        "texts": float(len(clean.ids)),
    }


def _save(module: RetroMAEModule, tokenizer: Any, source: Source, out: Path) -> Path:
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
    return out
