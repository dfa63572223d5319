"""Where training starts: a loaded checkpoint, with new heads where it has none.

A new ColBERT head starts as the identity (or a random orthogonal projection to fewer
dimensions): normalised token states already match well. A new sparse head starts from
inverse document frequencies, so that its first scores are those of a plain lexical match:
from random numbers, ReLU may kill it before the loss can tell it what a term is.
"""

from __future__ import annotations

import itertools
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from m3_retrievers.checks import require_package
from m3_retrievers.encoder.checkpoint import Checkpoint, load
from m3_retrievers.encoder.forward import hidden_states, pack
from m3_retrievers.encoder.heads import Heads, HeadSpec
from m3_retrievers.encoder.pieces import Tokens, cut, tokenize
from m3_retrievers.encoder.settings import choose_device
from m3_retrievers.encoder.source import Source, locate
from m3_retrievers.errors import MissingHeadError
from m3_retrievers.training.settings import LoraSettings, TrainSettings

# Texts the sparse head's start is fitted on: 384 unknowns from about 60,000 tokens.
_TEXTS = 512
_RIDGE = 1.0
# The mean lexical score of a text with itself that a new sparse head starts with; M3's own
# scores are of this size (FlagEmbedding's README: 0.2 for a question and its answer).
_SELF_SCORE = 1.0


def start(
    settings: TrainSettings, texts: Sequence[str], *, fit: bool = True
) -> tuple[Source, Checkpoint]:
    """Return where the model lies and the model to train, on the CPU, in float32.

    texts: passages of the training data, which a new sparse head is fitted on. fit: False where a
    checkpoint will fill it.
    """
    source = _source(settings.model)
    model = load(source, device=torch.device("cpu"), dtype=torch.float32)
    set_dropout(model.backbone, settings.dropout)
    torch.manual_seed(settings.seed)
    heads = Heads(
        model.heads.sparse_linear if "sparse" in settings.modes else None,
        _colbert_head(model, settings) if "colbert" in settings.modes else None,
    )
    model = replace(model, heads=heads)
    if "sparse" in settings.modes and heads.sparse_linear is None:
        heads.sparse_linear = nn.Linear(_width(model), 1)
        if settings.sparse_start == "idf" and fit:
            _start_from_idf(model, list(itertools.islice(texts, _TEXTS)), settings)
    for name, parameter in model.backbone.named_parameters():
        # no output of M3 comes from the pooler; an unused parameter would stall several devices
        parameter.requires_grad_(settings.lora is None and "pooler" not in name.split("."))
    if settings.lora is not None:
        model = replace(model, backbone=add_lora(model.backbone, settings.lora))
    return source, model


def set_dropout(model: nn.Module, share: float | None) -> None:
    """Set every dropout of a model; None leaves them."""
    if share is not None:
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = share


def add_lora(backbone: nn.Module, settings: LoraSettings) -> nn.Module:
    """Return the backbone with a trainable low-rank delta; its own weights stay as they are."""
    require_package("peft", module="peft", extra="train", purpose="Training with LoRA")
    from peft import LoraConfig, get_peft_model

    names = [
        name
        for name, module in backbone.named_modules()
        if isinstance(module, nn.Linear)
        and name.split(".")[-1] in settings.layers
        and "pooler" not in name.split(".")
    ]
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]
        lora_dropout=settings.dropout,
        target_modules=names,
    )
    with warnings.catch_warnings():
        # peft 0.21 asks transformers 5 by an attribute's old name
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
        wrapped: nn.Module = get_peft_model(backbone, config)
    return wrapped


def _source(model: str) -> Source:
    """Return the model with whichever of the two heads it has."""
    try:
        return locate(model)
    except MissingHeadError:
        pass
    for sparse, colbert in ((True, False), (False, True)):
        try:
            return locate(model, heads=HeadSpec(sparse=sparse, colbert=colbert))
        except MissingHeadError:
            continue
    return locate(model, heads=HeadSpec(sparse=False, colbert=False))


def _width(model: Checkpoint) -> int:
    return model.hidden_size


def _colbert_head(model: Checkpoint, settings: TrainSettings) -> nn.Module:
    if isinstance(model.heads.colbert_linear, nn.Linear):
        return model.heads.colbert_linear
    width = _width(model)
    head = nn.Linear(width, settings.colbert_dim or width)
    nn.init.zeros_(head.bias)
    if head.out_features == width:
        nn.init.eye_(head.weight)
    else:
        nn.init.orthogonal_(head.weight)
    return head


@torch.no_grad()
def _start_from_idf(model: Checkpoint, texts: Sequence[str], settings: TrainSettings) -> None:
    """Fit sparse_linear by ridge regression to √idf of each token, then set its scale."""
    limit = min(settings.batch.passage_max_length, model.max_length)
    room = limit - model.frame.size
    tokens = tokenize(model.tokenizer, texts, enough=room)
    tokens = [Tokens(one.ids[:room]) for one in tokens]
    frequency = Counter(int(id) for one in tokens for id in np.unique(one.ids))
    states, ids = [], []
    device = choose_device(None)
    model.backbone.to(device)
    for piece in cut(tokens, model.frame, max_length=limit, truncation="error"):
        states.append(hidden_states(model, pack([piece], device=device)).cpu())
        ids += piece.ids.tolist()
    model.backbone.to("cpu")
    hidden = torch.cat(states).double()
    idf = torch.tensor(
        [np.log1p(len(texts) / frequency[one]) if frequency[one] else 0.0 for one in ids]
    )
    weight, bias = _ridge(hidden, idf.double().sqrt())
    predicted = (hidden @ weight + bias).clamp(min=0)
    # a text's score with itself is about the sum of its squared weights
    scale = (_SELF_SCORE * len(texts) / predicted.square().sum()).sqrt()
    head = model.heads.sparse_linear
    assert head is not None
    head.weight.copy_((weight * scale).float()[None])
    head.bias.fill_(float(bias * scale))


def _ridge(states: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Return weight (h,) and bias of the ridge regression from states (t, h) to wanted (t,)."""
    mean, level = states.mean(0), wanted.mean()
    centred = states - mean
    gram = centred.T @ centred + _RIDGE * torch.eye(states.shape[1], dtype=states.dtype)
    weight = torch.linalg.solve(gram, centred.T @ (wanted - level))
    return weight, level - mean @ weight
