"""SPLADE's pooling over tokens with gradients, without holding a logit that gets none.

Of a text's (tokens, vocabulary) logits only those count that are positive, and under the maximum
only the largest of each term. They are found without gradients, some tokens at a time; the way
back visits them alone, a few thousand of a text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from m3_retrievers.encoder.splade_model import activated, logits_in_parts
from m3_retrievers.encoder.splade_source import SpladeActivation, SpladePooling
from m3_retrievers.training.similarity import Terms

# Entries whose rows are held at once on the way back: 50 MB at a width of 768. torch's sparse
# matrices would take two thirds of the time, and are not there on every device.
_ENTRIES_AT_ONCE = 1 << 14


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """The logits (k,) that count, of the states' rows ``tokens`` (k,) at the ids ``terms`` (k,)."""

    logits: Tensor
    tokens: Tensor
    terms: Tensor


def pooled_terms(
    decoder: nn.Linear,
    states: Tensor,
    lengths: Tensor,
    *,
    pooling: SpladePooling,
    activation: SpladeActivation,
) -> Terms:
    """Return the terms of texts, each once a text, with weights above 0.

    states: (t, h) of the texts' tokens, end to end. lengths: (b,) of each text.
    """
    with torch.no_grad():
        chosen = _chosen(decoder, states, lengths, pooling)
    bias = states.new_zeros(len(decoder.weight)) if decoder.bias is None else decoder.bias
    logits: Tensor = _Logits.apply(  # type: ignore[no-untyped-call]
        states, decoder.weight, bias, chosen.logits, chosen.tokens, chosen.terms
    )
    text = torch.repeat_interleave(torch.arange(len(lengths), device=states.device), lengths)
    weights, rows = activated(logits, activation), text[chosen.tokens]
    if pooling == "max":
        return Terms(weights, chosen.terms, rows)
    width = len(decoder.weight)
    cells, place = torch.unique(rows * width + chosen.terms, return_inverse=True)
    total = weights.new_zeros(len(cells)).index_add(0, place, weights)
    return Terms(total, cells % width, cells // width)


def _chosen(decoder: nn.Linear, states: Tensor, lengths: Tensor, pooling: SpladePooling) -> Chosen:
    choose = _largest if pooling == "max" else _positive
    found = []
    start = 0
    for text in torch.split(states, lengths.tolist()):
        for one in choose(decoder, text):
            found.append((one.logits, one.tokens + start, one.terms))
        start += len(text)
    return Chosen(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def _largest(decoder: nn.Linear, states: Tensor) -> Iterator[Chosen]:
    """Yield the largest logit of each term in a text, where it is positive."""
    best = place = None
    start = 0
    for logits in logits_in_parts(decoder, states):
        value, token = logits.max(dim=0)
        token += start
        if best is None or place is None:
            best, place = value, token
        else:
            place = torch.where(value > best, token, place)
            best = torch.maximum(value, best)
        start += len(logits)
    assert best is not None  # a piece has its frame at least
    assert place is not None
    terms = (best > 0).nonzero().squeeze(1)
    yield Chosen(best[terms], place[terms], terms)


def _positive(decoder: nn.Linear, states: Tensor) -> Iterator[Chosen]:
    """Yield every positive logit of a text."""
    start = 0
    for logits in logits_in_parts(decoder, states):
        tokens, terms = (logits > 0).nonzero(as_tuple=True)
        yield Chosen(logits[tokens, terms], tokens + start, terms)
        start += len(logits)


class _Logits(torch.autograd.Function):
    """Logits that are known, with their gradient: states[tokens] · weight[terms] + bias[terms]."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        states: Tensor,
        weight: Tensor,
        bias: Tensor,  # noqa: ARG004
        logits: Tensor,
        tokens: Tensor,
        terms: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(states, weight, tokens, terms)
        return logits.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        states, weight, tokens, terms = ctx.saved_tensors
        of_states, of_weight = torch.zeros_like(states), torch.zeros_like(weight)
        for start in range(0, len(terms), _ENTRIES_AT_ONCE):
            some = slice(start, start + _ENTRIES_AT_ONCE)
            token, term, share = tokens[some], terms[some], gradient[some, None]
            of_states.index_add_(0, token, share * weight[term])
            if ctx.needs_input_grad[1]:  # under a low-rank delta the decoder stays as it is
                of_weight.index_add_(0, term, share * states[token])
        of_bias = gradient.new_zeros(len(weight)).index_add(0, terms, gradient)
        return of_states, of_weight, of_bias, None, None, None
