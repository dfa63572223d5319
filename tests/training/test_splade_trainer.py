"""Whole runs of SPLADE's training on tiny models: one line of TOML, saving, going on, refusing."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from m3_retrievers import SpladeEncoder
from m3_retrievers.errors import CheckpointError, InputError, TrainingError, TrainingWarning
from m3_retrievers.training import (
    BatchSettings,
    LoraSettings,
    LossSettings,
    SpladeSettings,
    TrainSettings,
    read_settings,
    train,
    write_examples,
)
from splade_checkpoints import write_router, write_tiny_splade
from training_examples import EXAMPLES

pytestmark = pytest.mark.slow

TEXTS = [one.query for one in EXAMPLES]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_splade(tmp_path_factory.mktemp("start") / "bert")


@pytest.fixture
def settings(folder: Path, tmp_path: Path) -> TrainSettings:
    return TrainSettings(
        model=str(folder),
        out=str(tmp_path / "out"),
        objective="splade",
        batch=BatchSettings(tokens=512, max_queries=4, lengths=(64, 128)),
        steps=10,
        learning_rate=1e-3,
        save_every=100,
        log_every=1,
        warmup_share=0.0,
    )


def curve(trained) -> list[float]:
    return [line["loss"] for line in trained.log if "loss" in line]


def theirs(folder: Path, *, query: bool) -> np.ndarray:
    import warnings

    from sentence_transformers import SparseEncoder

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own deprecations
        model = SparseEncoder(str(folder), device="cpu", local_files_only=True)
        encode = model.encode_query if query else model.encode_document
        return encode(TEXTS, convert_to_sparse_tensor=False, show_progress_bar=False).numpy()


def test_one_line_of_the_toml_makes_a_splade_model(folder, tmp_path):
    write_examples(tmp_path / "lines.jsonl", EXAMPLES)
    lines = [f'model = "{folder}"', 'data = ["lines.jsonl"]', 'out = "out"', "steps = 2"]
    (tmp_path / "run.toml").write_text("\n".join([*lines, 'objective = "splade"']))
    trained = train(read_settings(tmp_path / "run.toml"))
    encoder = SpladeEncoder.from_pretrained(trained.folder, device="cpu")
    before = SpladeEncoder.from_pretrained(folder, device="cpu")
    assert encoder.fingerprint != before.fingerprint
    assert {"sparse", "query_flops", "document_flops", "query_terms", "document_terms"} <= set(
        trained.log[0]
    )


@pytest.mark.parametrize("options", [{}, {"lora": LoraSettings(rank=4)}], ids=["whole", "lora"])
def test_the_loss_falls_and_the_folder_loads_in_both_libraries(settings, options):
    trained = train(replace(settings, steps=40, **options), EXAMPLES)
    losses = curve(trained)
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
    ours = SpladeEncoder.from_pretrained(trained.folder, device="cpu").encode_queries(TEXTS)
    np.testing.assert_allclose(
        ours.sparse.toarray(), theirs(trained.folder, query=True), rtol=1e-5, atol=1e-5
    )
    # the decoder is still the embeddings: nothing stands in the file twice
    saved = load_file(trained.folder / "model.safetensors")
    size = AutoConfig.from_pretrained(trained.folder).vocab_size
    assert sum(one.ndim == 2 and len(one) == size for one in saved.values()) == 1


@pytest.mark.parametrize("queries", ["idf", "ones"])
def test_queries_without_a_model_are_saved_with_their_table(settings, queries):
    splade = SpladeSettings(queries=queries, idf_flops=True)
    trained = train(replace(settings, splade=splade), EXAMPLES)
    assert "query_flops" not in trained.log[0]
    encoder = SpladeEncoder.from_pretrained(trained.folder, device="cpu")
    for query, encode in {True: encoder.encode_queries, False: encoder.encode_documents}.items():
        ours = encode(TEXTS).sparse.toarray()
        np.testing.assert_allclose(ours, theirs(trained.folder, query=query), rtol=1e-5, atol=1e-5)
    weights = encoder.encode_query("the river").to_dicts()[0]
    if queries == "ones":
        assert set(weights.values()) == {1.0}
    else:
        common, rare = (weights[encoder.tokenizer.encode(w)[1]] for w in ("the", "river"))
        assert common < rare


def test_a_table_that_the_folder_has_is_kept(settings, tmp_path):
    table = write_router(tmp_path / "router")
    first = replace(settings, model=str(tmp_path / "router"), splade=SpladeSettings(), steps=2)
    trained = train(first, EXAMPLES)
    saved = load_file(trained.folder / "query_0_SparseStaticEmbedding" / "model.safetensors")
    assert torch.equal(saved["weight"], table)


def test_a_strong_flops_loss_leaves_fewer_terms(settings, tmp_path):
    free = replace(settings, splade=SpladeSettings(query_flops=0, document_flops=0), steps=20)
    held = replace(free, splade=SpladeSettings(query_flops=1, document_flops=1, flops_warmup=0))
    counts = [
        train(replace(one, out=str(tmp_path / name)), EXAMPLES).log[-2]["document_terms"]
        for name, one in {"free": free, "held": held}.items()
    ]
    assert counts[1] < 0.9 * counts[0]


def test_a_run_that_stopped_goes_on_with_the_same_curve(settings):
    settings = replace(settings, save_every=4)
    whole = curve(train(settings, EXAMPLES))
    last = Path(settings.out) / "checkpoints" / "checkpoint-10"
    (last / "complete").unlink()
    np.testing.assert_allclose(curve(train(settings, EXAMPLES)), whole, rtol=1e-4)
    with pytest.raises(InputError, match=r"other settings.*splade"):
        train(replace(settings, splade=SpladeSettings(query_flops=1)), EXAMPLES)


def test_scores_of_a_teacher_are_learned_from(settings):
    scored = [replace(one, positive_scores=(3.0,), negative_scores=(1.0, 0.0)) for one in EXAMPLES]
    with_teacher = curve(train(settings, scored))
    assert with_teacher[0] > curve(train(settings, EXAMPLES, resume=False))[0]


def test_a_model_that_goes_silent_stops_the_run(settings, tmp_path):
    silent = write_tiny_splade(tmp_path / "silent")
    state = load_file(silent / "model.safetensors")
    [bias] = [name for name in state if name.endswith("predictions.bias")]
    state[bias] = state[bias] - 1000
    save_file(state, silent / "model.safetensors", metadata={"format": "pt"})
    with (
        pytest.warns(TrainingWarning, match="0.00% of the texts"),
        pytest.raises(TrainingError, match="smaller query_flops"),
    ):
        train(replace(settings, model=str(silent), steps=30), EXAMPLES)


def test_settings_say_what_they_expect(settings, tmp_path, tiny_bert):
    unread = {"modes": ("sparse",), "loss": LossSettings(temperature=1), "self_distill_from": 9}
    for name, value in unread.items():
        with pytest.raises(InputError, match=rf"\['{name}'\] mean nothing to objective = 'splade'"):
            replace(settings, **{name: value})
    with pytest.raises(InputError, match=r"\['splade'\] mean nothing"):
        replace(settings, objective="m3", splade=SpladeSettings(queries="idf"))
    with pytest.raises(InputError, match="objective expects"):
        replace(settings, objective="colbert")
    for wrong in (
        {"query_flops": -1},
        {"temperature": 0},
        {"flops_warmup": 2},
        {"queries": "bm25"},
    ):
        with pytest.raises(InputError, match=next(iter(wrong))):
            SpladeSettings(**wrong)
    with pytest.raises(CheckpointError):  # a backbone without a masked-language head
        train(replace(settings, model=str(tiny_bert)), EXAMPLES)
