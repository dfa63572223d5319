"""Masks by their laws, the decoder by a hand case, whole runs on tiny models."""

import itertools
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from m3_retrievers import M3Encoder
from m3_retrievers.encoder.forward import Padded
from m3_retrievers.errors import CheckpointError, InputError, TrainingDataError
from m3_retrievers.training import RetroMAESettings, TrainSettings, pretrain, train
from m3_retrievers.training.data import Example
from m3_retrievers.training.masking import Vocabulary, mask_words, visible_rows
from m3_retrievers.training.retromae import DecoderLayer, locate_backbone, open_module
from sentences import SENTENCES

TEXTS = [*SENTENCES, *(f"{one} {two}" for one, two in itertools.pairwise(SENTENCES))]


@pytest.fixture(params=["tiny_bert", "tiny_m3"])
def model(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def settings(model, tmp_path):
    return RetroMAESettings(
        model=str(model),
        out=str(tmp_path / "out"),
        max_length=48,
        tokens=512,
        steps=12,
        learning_rate=1e-3,
        warmup_share=0.0,
        save_every=4,
        log_every=1,
    )


def vocabulary(folder):
    return Vocabulary.of(
        AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).config.vocab_size
    )


def test_words_are_masked_whole(model):
    tokenizer = AutoTokenizer.from_pretrained(model)
    words = vocabulary(model)
    rng = np.random.default_rng(0)
    split = 0
    for text in SENTENCES:
        encoded = tokenizer(text)
        ids = np.array(encoded["input_ids"])
        _, masked = mask_words(ids, words, 0.3, rng, frame=(1, 1))
        names = tokenizer.convert_ids_to_tokens(ids.tolist())
        for at in range(2, len(ids) - 1):
            goes_on = names[at].startswith("##") or (
                model.name == "tiny-m3" and not names[at].startswith("▁")
            )
            if goes_on:
                split += 1
                assert masked[at] == masked[at - 1], (names, masked)
        assert not masked[0]
        assert not masked[-1]
        assert masked.any()
    assert split > 20


def test_the_share_of_masked_tokens_is_what_was_asked_for(model):
    words = vocabulary(model)
    ids = np.concatenate(
        [[0], np.resize(words.ordinary[~words.continues[words.ordinary]], 4000), [0]]
    )
    rng = np.random.default_rng(1)
    changed, masked = mask_words(ids, words, 0.3, rng, frame=(1, 1))
    assert masked.mean() == pytest.approx(0.3, abs=0.005)
    assert np.array_equal(changed[~masked], ids[~masked])
    as_mask = (changed[masked] == words.mask_id).mean()
    kept = (changed[masked] == ids[masked]).mean()
    assert as_mask == pytest.approx(0.8, abs=0.05)
    assert kept == pytest.approx(0.1, abs=0.04)


def test_every_row_sees_its_own_half_and_never_itself():
    present = torch.ones(2, 60, dtype=torch.bool)
    present[1, 40:] = False
    seen = visible_rows(present, 0.5, torch.Generator().manual_seed(0))
    assert seen[:, :, 0].all()
    own = seen.diagonal(dim1=1, dim2=2)
    assert not own[:, 1:].any()
    assert not seen[1, :, 40:].any()
    others = seen[0, :, 1:].float()
    assert float(others.mean()) == pytest.approx(0.5 * 59 / 60, abs=0.03)
    # a pattern a row, not one for all
    assert len({tuple(row.tolist()) for row in seen[0]}) == 60
    assert not torch.equal(seen[0, :40, :40], seen[1, :40, :40])


def test_the_decoder_looks_only_where_it_may():
    torch.manual_seed(0)
    layer = DecoderLayer(8, 2, 16)
    queries, stream = torch.randn(1, 3, 8), torch.randn(1, 3, 8)
    seen = torch.tensor([[[True, False, False], [True, False, True], [True, True, False]]])
    before = layer(queries, stream, seen)
    changed = stream.clone()
    changed[0, 1] += 1.0
    after = layer(queries, changed, seen)
    assert torch.equal(before[0, :2], after[0, :2])
    assert not torch.allclose(before[0, 2], after[0, 2])
    # a row that sees position 0 alone takes its value as it is
    value = layer.out(layer.value(stream[:, :1]))[:, 0]
    mixed = layer.norm_attention(queries[:, 0] + value)
    inner = torch.nn.functional.gelu(layer.up(mixed))
    expected = layer.norm_out(mixed + layer.down(inner))
    torch.testing.assert_close(before[:, 0], expected, atol=1e-5, rtol=0)


def test_the_sentence_vector_carries_the_decoders_gradient(settings):
    _, module = open_module(locate_backbone(settings.model), settings)
    module.eval()
    ids = torch.tensor([[5, 6, 7, 8, 9, 10]])
    mask = torch.ones_like(ids, dtype=torch.bool)
    heads = torch.zeros_like(mask)
    heads[:, 0] = True
    sentence = torch.randn(1, module.backbone.config.hidden_size, requires_grad=True)
    module.decode(sentence, Padded(ids, mask, heads)).square().sum().backward()
    assert float(sentence.grad.abs().sum()) > 0


def curve(done):
    return [line["loss"] for line in done.log if "loss" in line]


def test_the_loss_falls_and_the_backbone_loads(settings, model):
    done = pretrain(replace(settings, steps=60, learning_rate=2e-3), TEXTS)
    losses = curve(done)
    assert np.mean(losses[-5:]) < 0.85 * np.mean(losses[:5])
    assert {"encoder", "decoder", "texts"} <= set(done.log[0])
    encoder = M3Encoder.from_pretrained(done.folder, device="cpu")
    assert encoder.outputs == ("dense", "colbert")
    old = M3Encoder.from_pretrained(str(model), device="cpu", heads=encoder.source.heads)
    assert encoder.source.pooling == old.source.pooling
    new, before = (one.encode_queries(TEXTS[:3]).dense for one in (encoder, old))
    assert np.abs(new - before).max() > 1e-3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        AutoModel.from_pretrained(done.folder)


def test_a_run_that_stopped_goes_on_with_the_same_curve(settings, tmp_path):
    whole = curve(pretrain(replace(settings, out=str(tmp_path / "whole")), TEXTS))
    pretrain(settings, TEXTS)
    newest = tmp_path / "out" / "checkpoints" / "checkpoint-12"
    (newest / "complete").unlink()
    again = pretrain(settings, TEXTS)
    np.testing.assert_allclose(curve(again), whole, rtol=1e-5)


def test_training_goes_on_from_a_pretrained_backbone(settings, tmp_path):
    done = pretrain(replace(settings, steps=2), TEXTS)
    examples = [Example(f"q {n}", (TEXTS[n],), (TEXTS[n + 1],)) for n in range(8)]
    trained = train(
        TrainSettings(
            model=str(done.folder), data=(), out=str(tmp_path / "m3"), steps=2, learning_rate=1e-4
        ),
        examples,
    )
    assert M3Encoder.from_pretrained(trained.folder).outputs == ("dense", "sparse", "colbert")


def test_what_cannot_be_trained_is_refused(settings, model):
    for name in ("encoder_mask", "decoder_mask"):
        for share in (0.0, 1.0, -0.1):
            with pytest.raises(InputError, match=f"{name} expects a share"):
                replace(settings, **{name: share})
    with pytest.raises(InputError, match="steps expects at least 1"):
        replace(settings, steps=0)
    with pytest.raises(TrainingDataError, match="got 2 without any"):
        pretrain(settings, ["", "  "])
    with pytest.raises(InputError, match="expected a list of strings"):
        pretrain(settings, ["a", None])


def test_a_delta_is_no_backbone(settings):
    with pytest.raises(CheckpointError, match="trains a whole"):
        pretrain(replace(settings, model="m3-mini"), TEXTS)
