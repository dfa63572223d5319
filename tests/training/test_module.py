"""The module encodes as M3Encoder does, however the step is cut into sub-batches."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from m3_retrievers import M3Encoder, scoring
from m3_retrievers.encoder.checkpoint import load
from m3_retrievers.encoder.source import locate
from m3_retrievers.training.batches import Draw
from m3_retrievers.training.collate import Collator
from m3_retrievers.training.contrast import excluded
from m3_retrievers.training.model import M3Module
from m3_retrievers.training.settings import LossSettings
from m3_retrievers.training.similarity import mode_scores

QUERIES = ["how do plants make food", "river", "the longest of the three questions is this one"]
PASSAGES = [
    "plants make food from light " * 3,
    "a bird",
    "rivers run to the sea",
    "mountains " * 20,
    "three questions were asked, and three were answered",
    "",
]
DRAWS = [
    Draw(query, tuple(PASSAGES[2 * n : 2 * n + 2]), None, (PASSAGES[2 * n],))
    for n, query in enumerate(QUERIES)
]


@pytest.fixture(scope="module")
def model(tiny_m3):
    return load(locate(tiny_m3), device=torch.device("cpu"), dtype=torch.float32)


@pytest.fixture(scope="module")
def collator(model):
    return Collator(model.tokenizer, model.frame, 64, 64)


def module_of(model, **options):
    modes = options.pop("modes", ("dense", "sparse", "colbert"))
    return M3Module(model, modes=modes, loss=LossSettings(), **options)


def gradients(module, step, **options):
    module.zero_grad()
    torch.manual_seed(0)
    result = module(step, **options)
    result.losses.total.backward()
    found = {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}
    return float(result.losses.total.detach()), found


def close(one, other, tolerance=1e-5):
    """Equal but for rounding, measured by the largest entry of the whole gradient.

    Not tensor by tensor: the gradient of a key's bias is 0 but for rounding.
    """
    assert one.keys() == other.keys()
    size = max(float(gradient.abs().max()) for gradient in one.values())
    for name, gradient in one.items():
        assert float((gradient - other[name]).abs().max()) < tolerance * size, name


def test_the_module_scores_as_the_encoder_does(model, collator, tiny_m3):
    step = collator(DRAWS)
    module = module_of(model).eval()
    with torch.no_grad():
        ours = mode_scores(module.encode(step.queries), module.encode(step.passages))
    encoder = M3Encoder.from_pretrained(
        tiny_m3, device="cpu", document_max_length=64, query_max_length=64
    )
    with pytest.warns(UserWarning, match="were cut"):
        documents = encoder.encode_documents([p for d in DRAWS for p in d.passages])
    queries = encoder.encode_queries(QUERIES)
    for mode, scores in ours.present().items():
        expected = scoring.by_mode(mode, queries, documents)
        np.testing.assert_allclose(scores.numpy(), expected, atol=1e-5)


def test_a_text_over_its_limit_is_cut_and_counted(collator):
    assert collator(DRAWS).cut == 1
    assert replace(collator, passage_max_length=8)(DRAWS).cut == 4


@pytest.mark.parametrize("budget", [1, 40, 100])
def test_sub_batches_change_neither_loss_nor_gradient(model, collator, budget):
    step = collator(DRAWS)
    loss, whole = gradients(module_of(model).eval(), step, distill=True)
    cut_loss, cut = gradients(module_of(model, sub_batch_tokens=budget).eval(), step, distill=True)
    assert cut_loss == pytest.approx(loss, abs=1e-5)
    close(whole, cut)


def test_gradient_caching_gives_the_gradient_of_one_batch(model, collator):
    step = collator(DRAWS)
    loss, whole = gradients(module_of(model).eval(), step, distill=True)
    cached = module_of(model, sub_batch_tokens=40, gradient_caching=True).eval()
    cached_loss, found = gradients(cached, step, distill=True)
    assert cached_loss == pytest.approx(loss, abs=1e-5)
    close(whole, found)


def test_gradient_caching_repeats_the_dropout_it_forgot(model, collator):
    step = collator(DRAWS)
    plain = module_of(model, sub_batch_tokens=40).train()
    drops = [m for m in plain.modules() if isinstance(m, torch.nn.Dropout)]
    before = [drop.p for drop in drops]
    try:
        for drop in drops:
            drop.p = 0.3
        loss, whole = gradients(plain, step)
        cached = module_of(model, sub_batch_tokens=40, gradient_caching=True).train()
        cached_loss, found = gradients(cached, step)
        different, _ = gradients(module_of(model, sub_batch_tokens=40).eval(), step)
    finally:
        for drop, p in zip(drops, before, strict=True):
            drop.p = p
        plain.eval()
    assert cached_loss == pytest.approx(loss, abs=1e-6)
    assert abs(different - loss) > 1e-3  # dropout was on
    close(whole, found)


def test_a_passage_that_answers_another_query_is_no_negative_for_it(model, collator):
    shared = [replace(DRAWS[0], positives=(PASSAGES[0], PASSAGES[2])), *DRAWS[1:]]
    module = module_of(model).eval()
    step = collator(shared)
    out = excluded(step, step.keys, torch.tensor([0, 2, 4]), in_batch=True)
    assert out.nonzero().tolist() == [[0, 2]]
    # the loss is that of the candidates without it
    with torch.no_grad():
        scores = mode_scores(module.encode(step.queries), module.encode(step.passages))
        logits = scores.dense[0] / 0.02
        without = torch.nn.functional.cross_entropy(
            logits[[0, 1, 3, 4, 5]][None], torch.tensor([0])
        )
        rest = [
            torch.nn.functional.cross_entropy(scores.dense[n][None] / 0.02, torch.tensor([2 * n]))
            for n in (1, 2)
        ]
        loss = module(step).losses.parts["dense"]
    assert float(loss) == pytest.approx(float((without + sum(rest)) / 3), abs=1e-5)


def test_without_in_batch_negatives_only_the_group_counts(model, collator):
    step = collator(DRAWS)
    module = module_of(model, in_batch_negatives=False).eval()
    with torch.no_grad():
        scores = mode_scores(module.encode(step.queries), module.encode(step.passages)).sparse
        group = torch.stack([scores[n, 2 * n : 2 * n + 2] for n in range(3)]) / 0.02
        expected = torch.nn.functional.cross_entropy(group, torch.zeros(3, dtype=torch.long))
        assert float(module(step).losses.parts["sparse"]) == pytest.approx(
            float(expected), abs=1e-5
        )


@pytest.mark.parametrize("modes", [("dense",), ("sparse",), ("sparse", "colbert")])
def test_any_subset_of_heads_can_be_trained(model, collator, modes):
    result = module_of(model, modes=modes).eval()(collator(DRAWS), distill=True)
    expected = {*modes}
    if len(modes) > 1:
        expected |= {"ensemble", *(f"distill_{mode}" for mode in modes)}
    assert set(result.losses.parts) == expected
    assert (result.active is None) == ("sparse" not in modes)


def test_bfloat16_stays_close(model, collator):
    step = collator(DRAWS)
    loss, _ = gradients(module_of(model).eval(), step)
    low, _ = gradients(module_of(model, precision=torch.bfloat16).eval(), step)
    assert low != loss
    assert low == pytest.approx(loss, rel=0.2)
