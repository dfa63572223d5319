"""`train` and `mine` as a user types them."""

import json
from pathlib import Path

import pytest

from m3_retrievers import M3Encoder
from m3_retrievers.training import read_examples

pytestmark = pytest.mark.slow

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


def test_a_config_becomes_a_model(run, lines, tiny_m3, tmp_path):
    config = tmp_path / "run.toml"
    config.write_text(
        f'model = "{tiny_m3}"\ndata = ["lines.jsonl"]\nout = "model"\nsteps = 4\n'
        "log_every = 1\nsave_every = 2\nweights = { dense = 1.0, sparse = 0.5, colbert = 2.0 }\n"
        "[batch]\ntokens = 256\nlengths = [64]\n"
    )
    done = run("train", config)
    assert done.code == 0, done.out + done.err
    for name in ("step", "loss", "dense", "sparse", "colbert", "ensemble"):
        assert name in done.out
    encoder = M3Encoder.from_pretrained(tmp_path / "model")
    assert encoder.default_weights.colbert == 2.0
    # a finished run is not done again
    again = run("train", config)
    assert again.code == 0, again.err
    assert len((tmp_path / "model/log.jsonl").read_text().splitlines()) >= 4
    assert run("train", config, "--fresh").code == 0


def test_a_wrong_config_says_so(run, tmp_path):
    done = run("train", tmp_path / "none.toml")
    assert done.code == 1
    assert "none.toml" in done.message


def test_negatives_are_mined_into_new_lines(run, lines, tiny_m3, tmp_path):
    done = run(
        "mine", lines, "--out", tmp_path / "mined", "--model", tiny_m3, "--count", 2,
        "--margin", 1.0, "--scores",
    )  # fmt: skip
    assert done.code == 0, done.out + done.err
    mined = read_examples(tmp_path / "mined" / "lines.jsonl")
    assert [one.query for one in mined] == [line["query"] for line in LINES]
    assert all(len(one.negatives) == 2 for one in mined)
    assert all(one.negative_scores is not None for one in mined)
    assert all(max(one.negative_scores) <= one.positive_scores[0] for one in mined)


def test_a_folder_without_lines_is_refused(run, tmp_path, tiny_m3):
    done = run("mine", tmp_path, "--out", tmp_path / "mined", "--model", tiny_m3)
    assert done.code == 1
    assert "no .jsonl file" in done.message
