"""`train` and `mine` as a user types them."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from m3_retrievers import M3Encoder
from m3_retrievers.cli.app import app
from m3_retrievers.errors import InputError, TrainingDataError
from m3_retrievers.training import read_examples

LINES = [
    {"query": f"the {word} of old", "pos": [f"an old {word} is here"], "neg": [f"a new {other}"]}
    for word, other in zip(
        ["river", "plant", "moon", "bread"], ["moon", "bread", "river", "plant"], strict=True
    )
]


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "lines.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in LINES))
    return path


def invoke(*arguments: object):
    return CliRunner().invoke(app, [str(one) for one in arguments])


def test_a_config_becomes_a_model(lines, tiny_m3, tmp_path):
    config = tmp_path / "run.toml"
    config.write_text(
        f'model = "{tiny_m3}"\ndata = ["lines.jsonl"]\nout = "model"\nsteps = 4\n'
        "log_every = 1\nsave_every = 2\nweights = { dense = 1.0, sparse = 0.5, colbert = 2.0 }\n"
        "[batch]\ntokens = 256\nlengths = [64]\n"
    )
    done = invoke("train", config)
    assert done.exit_code == 0, done.output
    for name in ("step", "loss", "dense", "sparse", "colbert", "ensemble"):
        assert name in done.output
    encoder = M3Encoder.from_pretrained(tmp_path / "model")
    assert encoder.default_weights.colbert == 2.0
    # a finished run is not done again
    again = invoke("train", config)
    assert again.exit_code == 0, again.output
    assert len((tmp_path / "model/log.jsonl").read_text().splitlines()) >= 4
    assert invoke("train", config, "--fresh").exit_code == 0


def test_a_wrong_config_says_so(tmp_path):
    done = invoke("train", tmp_path / "none.toml")
    assert isinstance(done.exception, InputError)


def test_negatives_are_mined_into_new_lines(lines, tiny_m3, tmp_path):
    done = invoke(
        "mine", lines, "--out", tmp_path / "mined", "--model", tiny_m3, "--count", 2,
        "--margin", 1.0, "--scores",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    mined = read_examples(tmp_path / "mined" / "lines.jsonl")
    assert [one.query for one in mined] == [line["query"] for line in LINES]
    assert all(len(one.negatives) == 2 for one in mined)
    assert all(one.negative_scores is not None for one in mined)
    assert all(max(one.negative_scores) <= one.positive_scores[0] for one in mined)


def test_a_folder_without_lines_is_refused(tmp_path, tiny_m3):
    done = invoke("mine", tmp_path, "--out", tmp_path / "mined", "--model", tiny_m3)
    assert isinstance(done.exception, TrainingDataError)
