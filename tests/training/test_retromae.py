"""Masks by their laws, the decoder by a hand case, whole runs on tiny models."""

import itertools
import json
import shutil
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

from m3_retrievers import M3Encoder
from m3_retrievers.encoder.forward import Padded
from m3_retrievers.errors import CheckpointError, InputError, TrainingDataError
from m3_retrievers.training import RetroMAESettings, TrainSettings, pretrain, train
from m3_retrievers.training.data import Example
from m3_retrievers.training.retromae.decoding import DecoderLayer, MaskedBatch
from m3_retrievers.training.retromae.masking import Vocabulary, mask_words, visible_rows
from m3_retrievers.training.retromae.pretraining import locate_backbone, open_module
from sentences import SENTENCES

pytestmark = pytest.mark.slow

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


def masked_batch(model):
    """Two texts of 6 and 4 tokens, frame included, with one and two words masked."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    cls, sep, pad = tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id
    ids = torch.tensor([[cls, 7, 8, 9, 10, sep], [cls, 11, 12, sep, pad, pad]])
    cls_places = torch.zeros_like(ids, dtype=torch.bool)
    cls_places[:, 0] = True
    masked = torch.zeros_like(cls_places)
    masked[0, 2] = masked[1, 1] = masked[1, 2] = True
    shown = ids.masked_fill(masked, tokenizer.mask_token_id)
    return MaskedBatch(Padded(ids, ids != pad, cls_places), shown, masked)


def test_the_losses_are_mean_cross_entropies_of_the_right_tokens(settings, monkeypatch):
    monkeypatch.setattr("m3_retrievers.training.retromae.decoding._LOGITS_AT_ONCE", 2)
    _, module = open_module(locate_backbone(settings.model), settings)
    module.eval()
    batch = masked_batch(settings.model)
    torch.manual_seed(3)
    losses = module(batch)
    clean = batch.clean
    answer = module.model(batch.shown, attention_mask=clean.mask.long(), output_hidden_states=True)
    states = answer.hidden_states[-1]
    # mean pooling takes the true tokens alone, CLS pooling the first
    sentence = torch.stack(
        [states[0, 0], states[1, 0]]
        if module.pooling == "cls"
        else [states[0, :6].mean(0), states[1, :4].mean(0)]
    )
    torch.manual_seed(3)
    head = module.model.cls if hasattr(module.model, "cls") else module.model.lm_head
    decoded = head(module.decode(sentence, clean))

    def mean_loss(logits, places):
        rows = [-logits[at].log_softmax(-1)[clean.ids[at]] for at in places]
        return torch.stack(rows).mean()

    torch.testing.assert_close(
        losses.encoder, mean_loss(answer.logits, [(0, 2), (1, 1), (1, 2)]), rtol=1e-5, atol=1e-5
    )
    # every token of both texts but CLS, SEP and padding
    places = [(0, 1), (0, 2), (0, 3), (0, 4), (1, 1), (1, 2)]
    torch.testing.assert_close(losses.decoder, mean_loss(decoded, places), rtol=1e-5, atol=1e-5)
    assert losses.total == losses.encoder + losses.decoder


def test_the_decoder_teaches_the_encoder_through_the_sentence_vector(settings):
    _, module = open_module(locate_backbone(settings.model), settings)
    module.eval()
    module(masked_batch(settings.model)).decoder.backward()
    # the decoder reads no state of the encoder's layers but the sentence's vector
    for layer in module.backbone.encoder.layer:
        assert float(layer.attention.self.value.weight.grad.abs().sum()) > 0


def test_the_word_head_is_the_folders_own_or_a_new_one_tied_to_the_embeddings(
    settings, model, tmp_path
):
    def parts(folder):
        checkpoint, module = open_module(locate_backbone(str(folder)), settings)
        outputs = module.model.get_output_embeddings().weight
        assert outputs is module.backbone.embeddings.word_embeddings.weight
        head = module.model.cls.predictions if hasattr(module.model, "cls") else None
        return checkpoint, (head.transform if head else module.model.lm_head).dense.weight

    checkpoint, _ = parts(model)
    torch.manual_seed(5)
    own = AutoModelForMaskedLM.from_pretrained(model)
    own.save_pretrained(tmp_path / "own")
    checkpoint.tokenizer.save_pretrained(tmp_path / "own")
    stem = "cls.predictions.transform" if hasattr(own, "cls") else "lm_head"
    assert torch.equal(parts(tmp_path / "own")[1], own.get_submodule(f"{stem}.dense").weight)


def test_a_cut_and_padding_in_the_tokenizer_file_change_nothing(settings, model, tmp_path):
    # MiniLM's own file asks for both
    folder = shutil.copytree(model, tmp_path / "cutting")
    tokenizer = AutoTokenizer.from_pretrained(model).backend_tokenizer
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=8, pad_id=1, pad_token="<pad>")
    tokenizer.save(str(folder / "tokenizer.json"))
    plain = pretrain(replace(settings, steps=2), TEXTS)
    done = pretrain(
        replace(settings, steps=2, model=str(folder), out=str(tmp_path / "other")), TEXTS
    )
    assert curve(done) == curve(plain)


def test_a_half_precision_backbone_trains_in_float32(settings, model, tmp_path):
    folder = shutil.copytree(model, tmp_path / "half")
    state = load_file(folder / "model.safetensors")
    save_file(
        {name: one.half() for name, one in state.items()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    _, module = open_module(locate_backbone(str(folder)), settings)
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}


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
    whole = pretrain(replace(settings, out=str(tmp_path / "whole")), TEXTS)
    pretrain(settings, TEXTS)
    newest = tmp_path / "out" / "checkpoints" / "checkpoint-12"
    (newest / "complete").unlink()
    again = pretrain(settings, TEXTS)
    np.testing.assert_allclose(curve(again), curve(whole), rtol=1e-5)
    ends = [load_file(done.folder / "model.safetensors") for done in (whole, again)]
    for name, weight in ends[0].items():
        torch.testing.assert_close(ends[1][name], weight, rtol=1e-5, atol=1e-6)


def test_a_run_goes_on_only_with_the_texts_it_began_with(settings):
    begun = pretrain(replace(settings, steps=4), TEXTS)
    with pytest.raises(InputError, match="texts differ"):
        pretrain(replace(settings, steps=4), TEXTS[1:])
    anew = pretrain(replace(settings, steps=4), TEXTS[1:], resume=False)
    assert curve(anew) != curve(begun)


def test_training_goes_on_from_a_pretrained_backbone(settings, tmp_path):
    done = pretrain(replace(settings, steps=2), TEXTS)
    examples = [Example(f"q {n}", (TEXTS[n],), (TEXTS[n + 1],)) for n in range(8)]
    trained = train(
        TrainSettings(
            model=str(done.folder), out=str(tmp_path / "m3"), steps=2, learning_rate=1e-4
        ),
        examples,
    )
    assert M3Encoder.from_pretrained(trained.folder).outputs == ("dense", "sparse", "colbert")


def test_what_cannot_be_trained_is_refused(settings, model):
    for name in ("encoder_mask", "decoder_mask"):
        for share in (0.0, 1.0, -0.1):
            with pytest.raises(InputError, match=f"{name} expects a share"):
                replace(settings, **{name: share})
    for name in ("steps", "accumulate", "save_every", "log_every"):
        with pytest.raises(InputError, match=f"{name} expects at least 1"):
            replace(settings, **{name: 0})
    for texts in ([], ["", "  "]):
        with pytest.raises(TrainingDataError, match=f"got {len(texts)} without any"):
            pretrain(settings, texts)
    with pytest.raises(InputError, match="expected a list of strings"):
        pretrain(settings, ["a", None])
    with pytest.raises(InputError, match="got one string"):
        pretrain(settings, "one text")
    with pytest.raises(InputError, match="max_length expects at most"):
        pretrain(replace(settings, max_length=9000), TEXTS)


def test_another_or_an_incomplete_backbone_is_refused(settings, model, tmp_path):
    other = shutil.copytree(model, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "model_type": "camembert"}))
    with pytest.raises(CheckpointError, match="expects a BERT or an XLM-RoBERTa"):
        pretrain(replace(settings, model=str(other)), TEXTS)
    torn = shutil.copytree(model, tmp_path / "torn")
    state = load_file(torn / "model.safetensors")
    kept = {name: one for name, one in state.items() if "layer.1." not in name}
    save_file(kept, torn / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="they would be random"):
        pretrain(replace(settings, model=str(torn)), TEXTS)


def test_a_delta_is_no_backbone(settings):
    with pytest.raises(CheckpointError, match="trains a whole"):
        pretrain(replace(settings, model="m3-mini"), TEXTS)
