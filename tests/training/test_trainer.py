"""Whole runs on tiny models: learning, stopping, going on, saving, refusing."""

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from m3_retrievers import M3Encoder
from m3_retrievers.errors import InputError, TrainingError, TrainingWarning
from m3_retrievers.training import (
    BatchSettings,
    Example,
    LoraSettings,
    TrainSettings,
    read_settings,
    train,
    write_examples,
)
from m3_retrievers.training.guards import SparseGuard, check_loss
from training_examples import EXAMPLES

pytestmark = pytest.mark.slow


@pytest.fixture
def settings(tiny_m3, tmp_path) -> TrainSettings:
    return TrainSettings(
        model=str(tiny_m3),
        out=str(tmp_path / "out"),
        batch=BatchSettings(tokens=512, max_queries=4, lengths=(64, 128)),
        steps=12,
        learning_rate=1e-3,
        save_every=4,
        log_every=1,
        warmup_share=0.0,
    )


def curve(trained) -> list[float]:
    return [line["loss"] for line in trained.log if "loss" in line]


@pytest.mark.parametrize("lora", [None, LoraSettings(rank=8)])
def test_the_loss_falls(settings, lora):
    trained = train(replace(settings, lora=lora, steps=80, learning_rate=3e-4), EXAMPLES)
    losses = curve(trained)
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
    assert {"dense", "sparse", "colbert", "ensemble", "distill_colbert"} <= set(trained.log[0])


def test_a_delta_on_a_delta_is_saved_whole_alone(settings, tmp_path):
    lora = LoraSettings(rank=4)
    first = train(replace(settings, lora=lora, steps=2), EXAMPLES)
    on_top = replace(
        settings, model=str(first.folder / "adapter"), lora=lora, steps=2, out=str(tmp_path / "two")
    )
    second = train(on_top, EXAMPLES)
    assert not (second.folder / "adapter").exists()
    assert M3Encoder.from_pretrained(second.folder, device="cpu").encode_query("a").dense.shape


@pytest.mark.parametrize("lora", [None, LoraSettings(rank=4)])
def test_a_saved_model_gives_what_was_trained(settings, lora):
    trained = train(replace(settings, lora=lora), EXAMPLES)
    before = M3Encoder.from_pretrained(settings.model, device="cpu")
    after = M3Encoder.from_pretrained(trained.folder, device="cpu")
    texts = [one.query for one in EXAMPLES]
    new, old = after.encode_queries(texts), before.encode_queries(texts)
    assert np.abs(new.dense - old.dense).max() > 1e-3
    assert after.fingerprint != before.fingerprint
    if lora is not None:
        part = M3Encoder.from_pretrained(trained.folder / "adapter", device="cpu")
        again = part.encode_queries(texts)
        np.testing.assert_allclose(again.dense, new.dense, atol=1e-5)
        np.testing.assert_allclose(again.sparse.toarray(), new.sparse.toarray(), atol=1e-5)
        np.testing.assert_allclose(again.colbert.vectors, new.colbert.vectors, atol=1e-5)


def test_one_seed_one_curve(settings, tmp_path):
    one = curve(train(settings, EXAMPLES))
    again = curve(train(replace(settings, out=str(tmp_path / "again")), EXAMPLES))
    other = curve(train(replace(settings, out=str(tmp_path / "other"), seed=1), EXAMPLES))
    assert one == again
    assert one != other


def test_a_killed_run_goes_on_with_the_same_curve(settings, tmp_path):
    """Killed for real, by SIGKILL, between two checkpoints."""
    whole = curve(train(replace(settings, out=str(tmp_path / "whole")), EXAMPLES))
    write_examples(tmp_path / "lines.jsonl", EXAMPLES)
    config = tmp_path / "run.toml"
    config.write_text(
        f"""
        model = "{settings.model}"
        data = ["lines.jsonl"]
        out = "out"
        steps = 12
        learning_rate = 1e-3
        save_every = 4
        log_every = 1
        warmup_share = 0.0
        [batch]
        tokens = 512
        max_queries = 4
        lengths = [64, 128]
        """
    )
    settings = read_settings(config)
    # the process stops itself in the middle of step 7, as a power cut would
    code = f"""
import os, signal
from m3_retrievers.training import guards, read_settings, train
from m3_retrievers.training import trainer
real = trainer.check_loss
def stop(loss, *, step):
    real(loss, step=step)
    if step == 6:
        os.kill(os.getpid(), signal.SIGKILL)
trainer.check_loss = stop
train(read_settings({str(config)!r}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    saved = sorted(path.name for path in (tmp_path / "out/checkpoints").iterdir())
    assert saved == ["checkpoint-4"]
    rest = train(settings)
    assert [line["step"] for line in rest.log if "loss" in line] == list(range(1, 13))
    np.testing.assert_allclose(curve(rest), whole, rtol=1e-5)


def test_a_torn_checkpoint_is_not_resumed_from(settings):
    whole = curve(train(settings, EXAMPLES))
    checkpoints = Path(settings.out) / "checkpoints"
    (checkpoints / "checkpoint-12" / "complete").unlink()
    (checkpoints / "checkpoint-12" / "trained.safetensors").write_bytes(b"half")
    again = train(settings, EXAMPLES)
    np.testing.assert_allclose(curve(again), whole, rtol=1e-5)


def test_a_run_with_other_settings_does_not_go_on(settings):
    train(settings, EXAMPLES)
    with pytest.raises(InputError, match=r"other settings.*learning_rate"):
        train(replace(settings, learning_rate=1e-4), EXAMPLES)
    train(replace(settings, learning_rate=1e-4), EXAMPLES, resume=False)


def test_new_heads_are_made_where_there_are_none(tiny_bert, settings):
    made = replace(settings, model=str(tiny_bert), colbert_dim=16)
    trained = train(made, EXAMPLES)
    encoder = M3Encoder.from_pretrained(trained.folder, device="cpu")
    assert encoder.outputs == ("dense", "sparse", "colbert")
    encoded = encoder.encode_queries([EXAMPLES[0].query])
    assert encoded.colbert.dimension == 16
    assert encoded.sparse.nnz > 0


def test_a_new_sparse_head_weighs_rare_terms_more(tiny_bert, settings):
    """idf start: one step at no learning rate leaves the start as it is."""
    made = replace(settings, model=str(tiny_bert), steps=1, learning_rate=1e-12)
    common = [replace(one, positives=(one.positives[0] + " the the",)) for one in EXAMPLES]
    trained = train(made, common)
    encoder = M3Encoder.from_pretrained(trained.folder, device="cpu")
    weights = encoder.encode_documents([common[0].positives[0]], outputs=("tokens",)).tokens
    found = {one.surface: one.weight for one in weights[0]}
    assert found["the"] < max(found.values())


def test_the_saved_weights_are_the_settings(settings):
    from m3_retrievers import HybridWeights

    trained = train(replace(settings, weights=HybridWeights(0.5, 0.25, 1.0)), EXAMPLES)
    encoder = M3Encoder.from_pretrained(trained.folder)
    assert encoder.default_weights == HybridWeights(0.5, 0.25, 1.0)


def test_a_silent_sparse_head_stops_the_run(settings, tmp_path):
    from checkpoints import write_tiny_m3

    folder = write_tiny_m3(tmp_path / "silent")
    head = torch.load(folder / "sparse_linear.pt", weights_only=True)
    head["bias"] = head["bias"] - 100.0
    torch.save(head, folder / "sparse_linear.pt")
    with (
        pytest.warns(TrainingWarning, match="may be going to zero"),
        pytest.raises(TrainingError, match="no term weight above 0 for 20 steps"),
    ):
        train(replace(settings, model=str(folder), steps=30), EXAMPLES)


def test_the_guards_speak_once_and_in_time():
    guard = SparseGuard()
    guard.watch(None, step=0)
    for step in range(19):
        if step:
            guard.watch(0.0, step=step)
        else:
            with pytest.warns(TrainingWarning, match="At step 0"):
                guard.watch(0.0, step=step)
    guard.watch(0.5, step=19)
    for step in range(20, 39):
        guard.watch(0.0, step=step)
    with pytest.raises(TrainingError, match="smaller head_learning_rate"):
        guard.watch(0.0, step=39)
    with pytest.raises(TrainingError, match="loss of step 3 is nan"):
        check_loss(float("nan"), step=3)


def test_a_step_with_one_candidate_is_refused(settings):
    lonely = [Example("q", ("p",), ()), Example("r", ("s",), ())]
    one = replace(settings.batch, group_size=1, max_queries=1)
    with pytest.raises(TrainingError, match="at least two candidate passages"):
        train(replace(settings, batch=one), lonely)


def test_settings_say_what_they_expect(tmp_path, settings):
    config = tmp_path / "a.toml"
    config.write_text('model = "m"\ndata = ["d"]\nout = "o"\nlearning = 1\n')
    with pytest.raises(InputError, match=r"unknown keys \['learning'\]"):
        read_settings(config)
    config.write_text('model = "m"\n')
    with pytest.raises(InputError, match="lacks"):
        read_settings(config)
    config.write_text("model = ")
    with pytest.raises(InputError, match="no valid TOML"):
        read_settings(config)
    with pytest.raises(InputError, match="expected to be a TOML file"):
        read_settings(tmp_path / "none.toml")
    for wrong in (
        {"modes": ("dens",)},
        {"steps": 0},
        {"precision": "float16"},
        {"sparse_start": "zeros"},
    ):
        with pytest.raises(InputError, match=next(iter(wrong))):
            replace(settings, **wrong)


def test_the_log_is_kept(settings):
    trained = train(settings, EXAMPLES)
    lines = (trained.folder / "log.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [dict(line) for line in trained.log]
