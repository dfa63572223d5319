"""BERT's and XLM-RoBERTa's encoder as a function of packed rows, for inference.

The arithmetic of transformers' BertModel and XLMRobertaModel (Devlin et al., arXiv 1810.04805),
which a test holds it to. Texts lie end to end, so nothing is computed for padding, and each weight
is held once, in the form that ``linear`` packs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from m3_retrievers.encoder.attention import Attention, attention
from m3_retrievers.encoder.linear import Linear, make_linear
from m3_retrievers.encoder.precision import DTYPES, Precision
from m3_retrievers.errors import InputError
from m3_retrievers.scoring.packed_product import Activation, whole_rows
from m3_retrievers.types.packed import offsets_of

# By model_type: whether positions are counted from padding + 1, and past padding tokens.
_KINDS = {"bert": False, "roberta": True, "xlm-roberta": True}
# What else a configuration may ask for, of which none is computed here.
_PLAIN: Mapping[str, tuple[Any, ...]] = {
    "hidden_act": ("gelu",),
    "position_embedding_type": ("absolute", None),
    "is_decoder": (False, None),
    "add_cross_attention": (False, None),
    "chunk_size_feed_forward": (0, None),
    "dtype": ("float32", "float16", "bfloat16", None),
    "torch_dtype": ("float32", "float16", "bfloat16", None),
}
_DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob")
_SIZES = {
    "vocabulary": "vocab_size",
    "hidden": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "inner": "intermediate_size",
    "positions": "max_position_embeddings",
    "types": "type_vocab_size",
    "pad_id": "pad_token_id",
}
_LAYER = {
    "attention.self.query": ("hidden", "hidden"),
    "attention.self.key": ("hidden", "hidden"),
    "attention.self.value": ("hidden", "hidden"),
    "attention.output.dense": ("hidden", "hidden"),
    "attention.output.LayerNorm": ("hidden",),
    "intermediate.dense": ("inner", "hidden"),
    "output.dense": ("hidden", "inner"),
    "output.LayerNorm": ("hidden",),
}
WORDS = "embeddings.word_embeddings.weight"
_POSITIONS = "embeddings.position_embeddings.weight"
_TYPES = "embeddings.token_type_embeddings.weight"
TABLES = (WORDS, _POSITIONS, _TYPES)
# Rows of a table by their numbers: (t,) to (t, h), new ones.
Rows: TypeAlias = Callable[[Tensor], Tensor]
# Bytes of the wide inner layer at once: of 8,192 tokens at BGE-M3's size it would take 134 MB.
# 2,048 rows of float32 there take a tenth longer than 1,024. An accelerator wants work at once.
_WIDE_BYTES = {"cpu": 1 << 24}
_WIDE_BYTES_ELSEWHERE = 1 << 28
_FEWEST_ROWS = 512


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of an encoder that ``Transformer`` computes; names as in ``_SIZES``."""

    vocabulary: int
    hidden: int
    layers: int
    heads: int
    inner: int
    positions: int
    types: int
    pad_id: int
    epsilon: float
    past_padding: bool

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield transformers' name and the shape of each tensor the encoder needs."""
        yield WORDS, (self.vocabulary, self.hidden)
        yield _POSITIONS, (self.positions, self.hidden)
        yield _TYPES, (self.types, self.hidden)
        named: dict[str, tuple[str, ...]] = {"embeddings.LayerNorm": ("hidden",)}
        for layer in range(self.layers):
            named |= {f"encoder.layer.{layer}.{name}": sizes for name, sizes in _LAYER.items()}
        for name, sizes in named.items():
            shape = tuple(getattr(self, size) for size in sizes)
            yield f"{name}.weight", shape
            yield f"{name}.bias", shape[:1]


def read_shape(config: Mapping[str, Any]) -> Shape | None:
    """Return the sizes a config.json states; None where it is another encoder, or states few."""
    kind, epsilon = config.get("model_type"), config.get("layer_norm_eps")
    sizes = {ours: config.get(theirs) for ours, theirs in _SIZES.items()}
    plain = all(config.get(name) in known for name, known in _PLAIN.items())
    drops = [config.get(name, 0.0) for name in _DROPOUTS]
    drops_right = all(isinstance(one, float | int) and 0 <= one <= 1 for one in drops)
    whole = all(type(size) is int and size >= 0 for size in sizes.values())
    if not isinstance(kind, str) or kind not in _KINDS or not (plain and whole):
        return None
    labels = config.get("id2label") or {}
    named = isinstance(labels, dict) and all(str(label).isdigit() for label in labels)
    if not isinstance(epsilon, float) or not drops_right or not named:
        return None
    shape = Shape(**sizes, epsilon=epsilon, past_padding=_KINDS[kind])  # type: ignore[arg-type]
    fits = shape.pad_id < shape.vocabulary and not shape.hidden % max(1, shape.heads)
    return shape if fits else None


class Transformer(nn.Module):
    """The encoder: token ids in, last hidden states out.

    state: the tensors that ``shape`` names; each is taken out of it, on ``device`` and in the
    number type of ``precision`` (8 bits: of the weights of linear layers alone). words: gives the
    rows of the table of words, where ``state`` does not hold it. It cannot be trained, saved or
    moved: its weights are packed for the device they were put on.
    """

    def __init__(
        self,
        shape: Shape,
        state: MutableMapping[str, Tensor],
        *,
        precision: Precision,
        device: torch.device,
        words: Rows | None = None,
    ) -> None:
        super().__init__()
        self.shape = shape
        dtype = DTYPES[precision]

        def take(name: str) -> Tensor:
            # a copy of what is kept as it is: a view would hold the whole mapped file in memory
            value = state.pop(name)
            return value.to(device, dtype, copy=value.ndim == 1)

        self._words = words or partial(functional.embedding, weight=take(WORDS))
        # the type of a single text is 0
        self._positions = take(_POSITIONS) + take(_TYPES)[0]
        self._norm = _norm(take, "embeddings.LayerNorm", shape)
        self._layers = [
            _Layer(take, f"encoder.layer.{layer}", shape, precision)
            for layer in range(shape.layers)
        ]

    def forward(self, input_ids: Tensor, lengths: Sequence[int]) -> Tensor:
        """Return (t, h) the last hidden states of token ids (t,), texts of these lengths."""
        words = self._words(input_ids)
        states = self._norm(words.add_(self._positions[self._places(input_ids, lengths)]))
        if states.device.type == "cpu":
            # rows that belong to no text, once, or each product would have to add them
            states = functional.pad(states, (0, 0, 0, whole_rows(len(states)) - len(states)))
        attend = attention(lengths, like=states, width=self.shape.hidden // self.shape.heads)
        for layer in self._layers:
            states = layer(states, attend)
        return states[: len(input_ids)]

    def _places(self, ids: Tensor, lengths: Sequence[int]) -> Tensor:
        """Return (t,) the row of each token in the table of positions."""
        # (t,) where the text of each token begins
        firsts = torch.from_numpy(np.repeat(offsets_of(lengths)[:-1], lengths)).to(ids.device)
        if not self.shape.past_padding:
            return torch.arange(len(ids), device=ids.device) - firsts
        # a text may spell the padding token, which has no position of its own
        counted = ids.ne(self.shape.pad_id)
        before = functional.pad(counted.cumsum(0), (1, 0))
        return (before[1:] - before[firsts]) * counted + self.shape.pad_id

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise InputError(
            "An encoder's backbone is packed for inference: it expects to be called, and cannot be "
            "trained, moved, copied or saved. Use m3_retrievers.training, or from_pretrained with "
            "another device or precision."
        )

    _apply = state_dict = load_state_dict = __reduce_ex__ = __deepcopy__ = _refuse


class _Layer:
    """One layer: attention and two linear layers, each added to its input and normalised."""

    def __init__(
        self, take: Callable[[str], Tensor], name: str, shape: Shape, precision: Precision
    ) -> None:
        def linear(*parts: str, activation: Activation = "none") -> Linear:
            weight, bias = (
                torch.cat([take(f"{name}.{part}.{kind}") for part in parts])
                for kind in ("weight", "bias")
            )
            return make_linear(weight, bias, precision=precision, activation=activation)

        self._heads, self._inner = shape.heads, shape.inner
        self._qkv = linear(*(f"attention.self.{one}" for one in ("query", "key", "value")))
        self._out = linear("attention.output.dense")
        self._attended = _norm(take, f"{name}.attention.output.LayerNorm", shape)
        self._up = linear("intermediate.dense", activation="gelu")
        self._down = linear("output.dense")
        self._done = _norm(take, f"{name}.output.LayerNorm", shape)

    def __call__(self, states: Tensor, attend: Attention) -> Tensor:
        split = self._qkv(states).view(len(states), 3, self._heads, -1)  # (t, 3, a, d)
        q, k, v = split.unbind(1)
        mixed = attend(q, k, v).flatten(1)
        states = self._attended(self._out(mixed).add_(states))
        parts = [self._fed(part) for part in torch.split(states, self._wide_rows(states))]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _fed(self, states: Tensor) -> Tensor:
        return self._done(self._down(self._up(states)).add_(states))

    def _wide_rows(self, states: Tensor) -> int:
        """Return how many rows of the inner layer are held at once."""
        room = _WIDE_BYTES.get(states.device.type, _WIDE_BYTES_ELSEWHERE)
        rows = room // (self._inner * states.element_size())
        return max(_FEWEST_ROWS, rows - rows % _FEWEST_ROWS)


def _norm(take: Callable[[str], Tensor], name: str, shape: Shape) -> Callable[[Tensor], Tensor]:
    return partial(
        functional.layer_norm,
        normalized_shape=(shape.hidden,),
        weight=take(f"{name}.weight"),
        bias=take(f"{name}.bias"),
        eps=shape.epsilon,
    )
