"""Short runs, relative paths, and what a resumed run does not do again."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

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
    log = [json.loads(line) for line in (tmp_path / "short/log.jsonl").open(encoding="utf-8")]
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
def test_an_anchor_holds_dense_and_colbert_where_they_began(settings, tmp_path):
    texts = [one.query for one in EXAMPLES]
    before = M3Encoder.from_pretrained(
        settings.model, device="cpu", heads=start_module.HeadSpec(sparse=False, colbert="identity")
    ).encode_queries(texts)

    def moved(anchor: float) -> float:
        run = replace(
            settings,
            out=str(tmp_path / f"anchor {anchor}"),
            loss=LossSettings(anchor_share=anchor, prior_share=1.0),
            steps=12,
            learning_rate=1e-3,
            warmup_share=0.0,
        )
        trained = train(run, EXAMPLES)
        assert ("anchor_dense" in trained.log[0]) == bool(anchor)
        assert "anchor_sparse" not in trained.log[0]
        after = M3Encoder.from_pretrained(trained.folder, device="cpu").encode_queries(texts)
        return float(abs(after.dense @ after.dense.T - before.dense @ before.dense.T).max())

    assert moved(50.0) < 0.5 * moved(0.0)


def test_an_anchor_without_a_delta_is_refused(settings):
    with pytest.raises(InputError, match="anchor_share expects a low-rank delta"):
        replace(settings, lora=None, loss=LossSettings(anchor_share=1.0))
    with pytest.raises(InputError, match="prior_share expects a number from 0"):
        LossSettings(prior_share=-1.0)
    with pytest.raises(InputError, match="workers expects a number from 0"):
        replace(settings, workers=-1)
