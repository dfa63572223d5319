"""SPLADE's losses: by hand, by definition, and as sentence-transformers computes them."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from m3_retrievers.encoder import splade_model
from m3_retrievers.training.batches import Draw
from m3_retrievers.training.collate import Collator, Step
from m3_retrievers.training.settings import SpladeSettings, TrainSettings
from m3_retrievers.training.similarity import Terms, term_matrix
from m3_retrievers.training.splade.model import SpladeModule
from m3_retrievers.training.splade.pooling import pooled_terms
from m3_retrievers.training.splade.sparsity import flops_loss, idf_scale, ramp
from m3_retrievers.training.splade.start import start_splade
from m3_retrievers.training.start import set_dropout
from sentences import SENTENCES
from splade_checkpoints import as_sentence_transformers, write_router, write_tiny_splade

WIDTH, VOCABULARY = 6, 40
LENGTHS = [3, 1, 5]
QUERIES = ["the page, the one page", "Why was the bridge closed before dawn?", "混合检索"]
GROUPS = [
    (SENTENCES[0], SENTENCES[4], "The page before the page after the last page is missing."),
    (SENTENCES[1], SENTENCES[10], SENTENCES[16]),
    (SENTENCES[13], SENTENCES[2], SENTENCES[11]),
]


# --- by hand and by definition --------------------------------------------------------------


def test_a_rarer_term_costs_less_in_the_idf_aware_loss() -> None:
    ids, rows = torch.tensor([0, 1]), torch.tensor([0, 0])
    terms = Terms(torch.tensor([3.0, 3.0]), ids, rows)
    scale = idf_scale(torch.tensor([0.5, 3.0, 9.0]))
    # one text: (3 / 0.5)² + (3 / 3)²
    assert flops_loss(terms, 1, scale).item() == pytest.approx(37)
    assert idf_scale(torch.tensor([1e-6])).item() == pytest.approx(2)  # stop words have a floor


def test_matching_by_idf_under_plain_flops_is_the_same_in_other_units() -> None:
    """arXiv 2411.04403: idf stands in the penalty (version 1) or in the inner product (2)."""
    idf = torch.tensor([0.7, 2.0, 5.0])
    query, document = torch.tensor([1.0, 1.0, 0.0]), torch.tensor([0.4, 0.9, 0.1])
    ids, rows = torch.arange(3), torch.zeros(3, dtype=torch.long)
    matched = (idf * query * document).sum()
    assert ((query * (idf * document)).sum() - matched).abs() < 1e-6
    plain = flops_loss(Terms(document, ids, rows), 1, torch.ones(3))
    aware = flops_loss(Terms(idf * document, ids, rows), 1, idf_scale(idf))
    assert aware.item() == pytest.approx(plain.item())


@pytest.mark.slow
def test_the_flops_losses_rise_as_sentence_transformers_lets_them() -> None:
    from sentence_transformers.sparse_encoder.callbacks import splade_callbacks as theirs

    schedule = theirs.SpladeRegularizerWeightSchedulerCallback
    callback = schedule.__new__(schedule)
    callback.scheduler_type, callback.warmup_steps = theirs.SchedulerType.QUADRATIC, 30
    for step in (0, 1, 10, 29, 30, 80):
        expected = callback._calculate_weight_value(step, 2e-4)
        assert 2e-4 * ramp(step, steps=30) == pytest.approx(expected)
    assert ramp(0, steps=0) == 1


@pytest.mark.parametrize("activation", ["relu", "log1p_relu"])
@pytest.mark.parametrize("pooling", ["max", "sum"])
@pytest.mark.parametrize("at_once", [1 << 22, VOCABULARY * 2])
def test_pooled_terms_have_the_values_and_gradients_of_the_definition(
    monkeypatch: pytest.MonkeyPatch, pooling: Any, activation: Any, at_once: int
) -> None:
    monkeypatch.setattr(splade_model, "_LOGITS_AT_ONCE", at_once)
    torch.manual_seed(0)
    states = torch.randn(sum(LENGTHS), WIDTH, requires_grad=True)
    decoder = torch.nn.Linear(WIDTH, VOCABULARY)
    target = torch.rand(len(LENGTHS), VOCABULARY)
    inputs = (states, decoder.weight, decoder.bias)

    def of(weights: torch.Tensor) -> list[torch.Tensor]:
        return [*torch.autograd.grad(((weights - target) ** 2).sum(), inputs)]

    rows = []
    for text in torch.split(states, LENGTHS):
        weights = torch.log1p(functional.relu(decoder(text)))
        weights = torch.log1p(weights) if activation == "log1p_relu" else weights
        rows.append(weights.amax(0) if pooling == "max" else weights.sum(0))
    expected = torch.stack(rows)
    terms = pooled_terms(
        decoder, states, torch.tensor(LENGTHS), pooling=pooling, activation=activation
    )
    assert (terms.weights > 0).all()
    assert len({*zip(terms.rows.tolist(), terms.ids.tolist(), strict=True)}) == len(terms.ids)
    ours = term_matrix(terms, torch.arange(VOCABULARY), len(LENGTHS))
    torch.testing.assert_close(ours, expected)
    for found, wanted in zip(of(ours), of(expected), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_no_logits_are_held_for_the_gradient() -> None:
    torch.manual_seed(0)
    tokens, vocabulary = 300, 5000
    decoder = torch.nn.Linear(WIDTH, vocabulary)
    states = torch.randn(tokens, WIDTH, requires_grad=True)
    held: dict[int, int] = {}

    def count(tensor: torch.Tensor) -> torch.Tensor:
        held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        terms = pooled_terms(
            decoder, states, torch.tensor([100, 200]), pooling="max", activation="relu"
        )
    assert len(terms.ids) > vocabulary  # nearly every term of both texts
    assert sum(held.values()) < tokens * vocabulary * 4 / 10


# --- sentence-transformers ------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("caching", [False, True], ids=["one_batch", "gradient_caching"])
@pytest.mark.parametrize(
    ("kind", "pooling", "activation"),
    [("bert", "max", "relu"), ("xlm-roberta", "max", "log1p_relu"), ("bert", "sum", "relu")],
)
def test_losses_and_gradients_equal_sentence_transformers(
    tmp_path: Path, kind: str, pooling: str, activation: str, caching: bool
) -> None:
    folder = write_tiny_splade(tmp_path / kind, kind=kind)
    as_sentence_transformers(folder, pooling=pooling, activation=activation)
    settings = replace(
        settings_for(folder),
        sub_batch_tokens=40 if caching else 100_000,
        gradient_caching=caching,
    )
    module = start_splade(settings, []).eval()
    result = module(step_of(module))
    result.losses.total.backward()
    losses, gradients = theirs(folder, settings.splade)
    parts = result.losses.parts
    assert parts["sparse"].item() == pytest.approx(losses["base_loss"], rel=1e-5)
    for side in ("query", "document"):
        share = getattr(settings.splade, f"{side}_flops")
        expected = losses[f"{side}_regularizer_loss"]
        assert share * parts[f"{side}_flops"].item() == pytest.approx(expected, rel=1e-5)
    assert result.losses.total.item() == pytest.approx(sum(losses.values()), rel=1e-5)
    found = {
        name.removeprefix("body."): one.grad
        for name, one in module.named_parameters()
        if one.grad is not None
    }
    compared = 0
    for name, gradient in gradients.items():
        # a shift of all keys changes no attention: this gradient is 0 but for rounding
        if name in found and not name.endswith("key.bias"):
            compared += 1
            size = gradient.abs().max()
            assert (found[name] - gradient).abs().max() <= 1e-5 * size, name
    assert compared > 20


@pytest.mark.slow
def test_queries_by_a_table_have_the_loss_of_sentence_transformers(tmp_path: Path) -> None:
    table = write_router(tmp_path)
    settings = settings_for(tmp_path)
    module = start_splade(settings, []).eval()
    torch.testing.assert_close(module.table, table)
    result = module(step_of(module))
    result.losses.total.backward()
    losses, _ = theirs(tmp_path, settings.splade, by_table=True)
    assert "query_flops" not in result.losses.parts
    assert result.losses.total.item() == pytest.approx(sum(losses.values()), rel=1e-5)


def settings_for(folder: Path) -> TrainSettings:
    # inner products of random weights are near 100: at a temperature of 1, float32's rounding of
    # one alone moves a gradient by 1e-5 of itself
    return TrainSettings(
        model=str(folder),
        out=str(folder / "out"),
        objective="splade",
        splade=SpladeSettings(temperature=20.0, query_flops=0.03, document_flops=0.01),
        dropout=0.0,
    )


def step_of(module: SpladeModule) -> Step:
    collator = Collator(module.model.tokenizer, module.model.frame, 64, 64)
    return collator(
        [Draw(query, group, None, group[:1]) for query, group in zip(QUERIES, GROUPS, strict=True)]
    )


def theirs(
    folder: Path, settings: SpladeSettings, *, by_table: bool = False
) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """Return each part of sentence-transformers' loss, weighted, and its gradients by our names."""
    from sentence_transformers import SparseEncoder
    from sentence_transformers.sparse_encoder.losses import (
        SparseMultipleNegativesRankingLoss,
        SpladeLoss,
    )

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own deprecations
        model = SparseEncoder(str(folder), device="cpu", local_files_only=True)
        set_dropout(model.train(), 0.0)  # evaluating, it overwrites what the gradient needs
        loss = SpladeLoss(
            model,
            SparseMultipleNegativesRankingLoss(model, scale=1 / settings.temperature),
            document_regularizer_weight=settings.document_flops,
            query_regularizer_weight=None if by_table else settings.query_flops,
        )
        columns = [QUERIES, *([group[at] for group in GROUPS] for at in range(3))]
        tasks = ["query", *["document"] * 3] if by_table else [None] * 4
        features = [
            model.preprocess(texts, task=task) for texts, task in zip(columns, tasks, strict=True)
        ]
        parts = loss(features, None)
        sum(parts.values()).backward()
    gradients = {
        name.partition(".")[2].removeprefix("model.").removeprefix("auto_model."): one.grad
        for name, one in model.named_parameters()
        if one.grad is not None
    }
    return {name: part.item() for name, part in parts.items()}, gradients
