"""Short runs, relative paths, and what a resumed run does not do again."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from m3_retrievers import M3Encoder
from m3_retrievers.cli.train import run
from m3_retrievers.errors import InputError
from m3_retrievers.training import (
    BatchSettings,
    Example,
    LoraSettings,
    LossSettings,
    TrainSettings,
    train,
    write_examples,
)
from m3_retrievers.training import start as start_module
from m3_retrievers.training.batches import Draw
from m3_retrievers.training.collate import Collator
from m3_retrievers.training.model import M3Module
from m3_retrievers.training.prior import LexicalPrior

EXAMPLES = [
    Example(f"where is the {word}", (f"the {word} is at home",), (f"a {word} is no {other}",))
    for word, other in zip(
        ["river", "plant", "moon", "bread"], ["stone", "music", "horse", "winter"], strict=True
    )
]


@pytest.fixture
def settings(tiny_bert, tmp_path) -> TrainSettings:
    return TrainSettings(
        model=str(tiny_bert),
        out=str(tmp_path / "out"),
        batch=BatchSettings(tokens=512, max_queries=4, lengths=(64,)),
        lora=LoraSettings(rank=2),
        steps=2,
        save_every=1,
    )


@pytest.mark.slow
def test_a_run_shorter_than_its_log_interval_logs_its_last_step(settings, tmp_path, capsys):
    write_examples(tmp_path / "lines.jsonl", EXAMPLES)
    config = tmp_path / "run.toml"
    config.write_text(
        f'model = "{settings.model}"\ndata = ["lines.jsonl"]\nout = "short"\nsteps = 2\n'
        "log_every = 10\n"
    )
    run(config, fresh=True)
    lines = (tmp_path / "short/log.jsonl").read_text("utf-8").splitlines()
    log = [json.loads(line) for line in lines]
    assert [line["step"] for line in log if "loss" in line] == [2]
    assert str(tmp_path / "short") in capsys.readouterr().out


@pytest.mark.slow
def test_a_delta_trained_by_a_relative_path_loads_from_elsewhere(settings, tmp_path, monkeypatch):
    monkeypatch.chdir(Path(settings.model).parent)
    trained = train(replace(settings, model=Path(settings.model).name), EXAMPLES)
    monkeypatch.chdir(tmp_path)
    assert M3Encoder.from_pretrained(trained.folder / "adapter", device="cpu").encode_query("a")


@pytest.mark.slow
def test_a_resumed_run_does_not_fit_the_sparse_head_again(settings, monkeypatch):
    fitted = []
    real = start_module._start_from_idf
    monkeypatch.setattr(
        start_module, "_start_from_idf", lambda *given: fitted.append(1) or real(*given)
    )
    first = train(settings, EXAMPLES)
    again = train(settings, EXAMPLES)
    assert fitted == [1]
    heads = [(one.folder / "sparse_linear.pt").read_bytes() for one in (first, again)]
    assert heads[0] == heads[1]


@pytest.mark.slow
def test_an_anchor_is_least_where_the_model_began(settings):
    """Its teacher is the model without the delta: any other scores are further from it (Gibbs)."""
    loss = LossSettings(anchor_share=2.0, dense_anchor_share=3.0, prior_share=1.0)
    _, model = start_module.start(replace(settings, loss=loss), [EXAMPLES[0].positives[0]])
    texts = [text for one in EXAMPLES for text in (*one.positives, *one.negatives)]
    prior = LexicalPrior.of(texts, model.tokenizer, vocabulary_size=model.vocabulary_size)
    module = M3Module.of(model, replace(settings, loss=loss), prior=prior)
    draws = [
        Draw(one.query, (*one.positives, *one.negatives), None, one.positives) for one in EXAMPLES
    ]
    step = Collator(model.tokenizer, model.frame, 64, 64)(draws)

    def parts() -> dict[str, float]:
        losses = module(step).losses
        found = {name: float(one.detach()) for name, one in losses.parts.items()}
        anchors = 3.0 * found["anchor_dense"] + 2.0 * found["anchor_colbert"]
        plain = replace(loss, anchor_share=0.0, dense_anchor_share=None, prior_share=0.0)
        module.loss, module.prior = plain, None
        bare = float(module(step).losses.total.detach())
        module.loss, module.prior = loss, prior
        total = float(losses.total.detach())
        assert total == pytest.approx(bare + anchors + found["prior"], rel=1e-4)
        return found

    before = parts()
    assert "anchor_sparse" not in before
    torch.manual_seed(0)
    for name, parameter in module.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    after = parts()
    assert after["anchor_dense"] > before["anchor_dense"] + 1e-3
    assert after["anchor_colbert"] > before["anchor_colbert"] + 1e-3


def test_an_anchor_without_a_delta_is_refused(settings):
    with pytest.raises(InputError, match="anchor_share expects a low-rank delta"):
        replace(settings, lora=None, loss=LossSettings(anchor_share=1.0))
    with pytest.raises(InputError, match="anchor_share expects a low-rank delta"):
        replace(settings, lora=None, loss=LossSettings(dense_anchor_share=1.0))
    with pytest.raises(InputError, match="prior_share expects a number from 0"):
        LossSettings(prior_share=-1.0)
    with pytest.raises(InputError, match="dense_anchor_share expects a number from 0"):
        LossSettings(dense_anchor_share=-1.0)
    with pytest.raises(InputError, match="workers expects a number from 0"):
        replace(settings, workers=-1)
