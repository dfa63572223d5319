"""Our own forward pass and its layers, each beside the plain one it stands for."""

import copy
import json
import pickle

import numpy as np
import pytest
import torch
from transformers import AutoModel

from m3_retrievers import M3Encoder
from m3_retrievers.encoder.attention import PaddedAttention, attention
from m3_retrievers.encoder.checkpoint import load, load_for_inference
from m3_retrievers.encoder.heads import HeadSpec
from m3_retrievers.encoder.linear import (
    Int8Linear,
    PlainLinear,
    can_quantize,
    make_linear,
)
from m3_retrievers.encoder.precision import choose_precision, why
from m3_retrievers.encoder.source import locate
from m3_retrievers.encoder.transformer import Transformer, read_shape
from m3_retrievers.errors import InputError
from m3_retrievers.scoring import packed_product
from m3_retrievers.scoring.packed_product import PackedProduct, can_pack

CPU = torch.device("cpu")


def layer(rows, columns, *, dtype=torch.float32, seed=0):
    made = torch.Generator().manual_seed(seed)
    weight = torch.randn(columns, rows, generator=made) / rows**0.5
    bias = torch.randn(columns, generator=made)
    return weight.to(dtype), bias.to(dtype)


def off(found, expected):
    return float((found - expected).norm() / expected.norm())


@pytest.mark.skipif(not can_pack(torch.float32), reason="this PyTorch has no such oneDNN layer")
@pytest.mark.parametrize(("count", "rows", "columns"), [(1, 32, 96), (14, 384, 1536), (65, 384, 7)])
def test_a_packed_layer_is_the_plain_one(count, rows, columns):
    weight, bias = layer(rows, columns)
    given = torch.randn(count, rows, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        found, plain = (kind(weight, bias)(given) for kind in (PackedProduct, PlainLinear))
    assert off(found, plain) <= 4e-7


@pytest.mark.skipif(not can_pack(torch.float32), reason="this PyTorch has no such oneDNN layer")
def test_few_shapes_reach_the_product_whatever_the_number_of_rows(monkeypatch):
    """oneDNN keeps what it made for each of them."""
    made, seen = PackedProduct(*layer(24, 8)), set()
    product = made._product
    monkeypatch.setattr(made, "_product", lambda rows: seen.add(len(rows)) or product(rows))
    with torch.inference_mode():
        for count in range(1, 5000, 7):
            assert len(made(torch.zeros(count, 24))) == count
    assert len(seen) <= 44


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_activation_within_the_product_is_the_one_behind_it(dtype):
    if not can_pack(dtype):
        pytest.skip("this PyTorch has no such oneDNN layer")
    weight, bias = layer(384, 96, dtype=dtype)
    given = torch.randn(33, 384, generator=torch.Generator().manual_seed(1)).to(dtype)
    with torch.inference_mode():
        found, plain = (
            kind(weight, bias, activation="gelu")(given) for kind in (PackedProduct, PlainLinear)
        )
    assert off(found.float(), plain.float()) <= (4e-7 if dtype == torch.float32 else 5e-3)


@pytest.mark.skipif(not can_quantize(), reason="this PyTorch has no such oneDNN layer")
def test_eight_bits_are_near_and_a_large_row_takes_nothing_from_a_small_one():
    weight, bias = layer(384, 96)
    given = torch.randn(9, 384, generator=torch.Generator().manual_seed(1))
    given[3] *= 1000
    given[4] = 0
    with torch.inference_mode():
        found, plain = (kind(weight, bias * 0)(given) for kind in (Int8Linear, PlainLinear))
    for row in (0, 3, 8):
        assert off(found[row], plain[row]) < 0.02
    np.testing.assert_array_equal(found[4], np.zeros(96, np.float32))


def test_a_pytorch_without_the_operators_computes_plainly(monkeypatch):
    class Missing:
        def __init__(self, *_):
            raise AttributeError("no such operator")

    monkeypatch.setattr(packed_product, "PackedProduct", Missing)
    can_pack.cache_clear()
    try:
        assert isinstance(make_linear(*layer(8, 8), precision="fp32"), PlainLinear)
    finally:
        can_pack.cache_clear()


def test_an_operator_that_is_wrong_is_not_used():
    class Wrong(PlainLinear):
        def __call__(self, rows):
            return super().__call__(rows) * 1.01

    assert not packed_product.agrees(Wrong, torch.float32, most=2e-6)


def test_sequences_end_to_end_attend_as_padded_ones_do():
    lengths = (5, 5, 3, 1, 7, 3)
    q, k, v = torch.randn(3, sum(lengths), 2, 4, generator=torch.Generator().manual_seed(0))
    found = attention(lengths, like=q, width=4)(q, k, v)
    padded = PaddedAttention(lengths, device=q.device)(q, k, v)
    torch.testing.assert_close(padded, found, atol=1e-6, rtol=0)
    first = 0
    for length in lengths:
        part = slice(first, first + length)
        scores = torch.einsum("iad,jad->aij", q[part], k[part]) / 2  # √d
        alone = torch.einsum("aij,jad->iad", scores.softmax(-1), v[part])
        torch.testing.assert_close(found[part], alone, atol=1e-6, rtol=0)
        first += length


@pytest.fixture(params=["tiny_m3", "tiny_bert"])
def folder(request):
    return request.getfixturevalue(request.param)


def source_of(folder):
    return locate(folder, heads=HeadSpec(sparse=False, colbert="identity"))


def test_the_states_are_those_of_transformers(folder):
    own = load_for_inference(source_of(folder), device=CPU, precision="fp32")
    theirs = AutoModel.from_pretrained(folder).eval()
    lengths = (20, 9, 9, 3)
    ids = torch.randint(5, own.vocabulary_size, (sum(lengths),))
    ids[4] = own.pad_id  # a text that spells the padding token
    with torch.inference_mode():
        found = own.backbone(ids, lengths).split(lengths)
        for one, part in zip(ids.split(lengths), found, strict=True):
            expected = theirs(
                input_ids=one[None], attention_mask=torch.ones_like(one)[None]
            ).last_hidden_state[0]
            torch.testing.assert_close(part, expected, atol=2e-6, rtol=2e-6)


def test_what_cannot_be_trained_or_moved_says_so(folder):
    backbone = load_for_inference(source_of(folder), device=CPU, precision="fp32").backbone
    assert isinstance(backbone, Transformer)
    for call in (
        lambda: backbone.to("meta"),
        lambda: backbone.half(),
        backbone.state_dict,
        lambda: copy.deepcopy(backbone),
        lambda: pickle.dumps(backbone),
    ):
        with pytest.raises(InputError, match="packed for inference"):
            call()
    trainable = load(source_of(folder), device=CPU, dtype=torch.float32).backbone
    assert trainable.state_dict()


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_act": "relu"},
        {"position_embedding_type": "relative_key"},
        {"is_decoder": True},
        {"model_type": "electra"},
        {"layer_norm_eps": None},
        {"num_attention_heads": 5},
    ],
)
def test_another_kind_of_encoder_stays_transformers_own(folder, changes):
    config = json.loads((folder / "config.json").read_text())
    assert read_shape(config) is not None
    assert read_shape(config | changes) is None


def test_an_unknown_encoder_gives_what_its_module_gives(tiny_m3, monkeypatch):
    texts = ["The river rose.", "page", "a bridge and a river"]
    expected = M3Encoder.from_pretrained(tiny_m3, device="cpu").encode_documents(texts)
    monkeypatch.setattr("m3_retrievers.encoder.weights.read_shape", lambda _: None)
    padded = M3Encoder.from_pretrained(tiny_m3, device="cpu")
    found = padded.encode_documents(texts)
    assert not isinstance(padded.checkpoint.backbone, Transformer)
    np.testing.assert_allclose(found.dense, expected.dense, atol=1e-6)
    np.testing.assert_allclose(found.colbert.vectors, expected.colbert.vectors, atol=1e-6)
    np.testing.assert_allclose(found.sparse.toarray(), expected.sparse.toarray(), atol=1e-5)
    with pytest.raises(InputError, match="expects a BERT"):
        M3Encoder.from_pretrained(tiny_m3, device="cpu", precision="int8").encode_query("a")


@pytest.mark.parametrize(("precision", "least"), [("bf16", 0.99), ("int8", 0.99)])
def test_fewer_bits_stay_close(tiny_m3, precision, least):
    texts = ["The river rose.", "page", "a bridge and a river"]
    exact = M3Encoder.from_pretrained(tiny_m3, device="cpu").encode_documents(texts)
    low = M3Encoder.from_pretrained(tiny_m3, device="cpu", precision=precision)
    found = low.encode_documents(texts)
    assert found.dense.dtype == np.float32
    assert (found.dense * exact.dense).sum(axis=1).min() > least


def test_auto_is_decided_by_the_processor_and_not_by_the_clock(monkeypatch):
    for can, chosen in (
        ({"avx512_bf16": True}, "bf16"),
        ({"amx_bf16": True}, "bf16"),
        ({}, "fp32"),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda can=can: can)
        assert choose_precision("auto", CPU) == chosen
        assert "bfloat16" in why(chosen, CPU)
        assert choose_precision(None, CPU) == "fp32"
    assert choose_precision("auto", torch.device("cuda")) == "fp16"
    with pytest.raises(InputError, match="expects the processor"):
        choose_precision("int8", torch.device("cuda"))


def test_nothing_holds_the_file_but_the_tables_of_embeddings(tiny_m3):
    folder = tiny_m3
    backbone = load_for_inference(source_of(folder), device=CPU, precision="fp32").backbone
    size = (folder / "model.safetensors").stat().st_size
    first = backbone._layers[0]
    for norm in (first._attended, first._done, backbone._norm):
        for value in (norm.keywords["weight"], norm.keywords["bias"]):
            assert value.untyped_storage().nbytes() < size / 2
