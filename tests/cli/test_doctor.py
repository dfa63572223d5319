import json
import tomllib
from pathlib import Path

import pytest

from m3_retrievers import M3Encoder
from m3_retrievers.cli import checkup
from m3_retrievers.cli.checkup import (
    NEWEST_PYTHON,
    OLDEST_PYTHON,
    PUBLISHED,
    checks,
    environment,
    is_bge_m3,
    model_facts,
    python_check,
)
from m3_retrievers.cli.speed import compare


def test_every_law_holds_on_a_model_with_all_three_outputs(tiny_m3):
    found = checks(M3Encoder.from_pretrained(tiny_m3, device="cpu"))
    names = [check.name for check in found]
    assert set(PUBLISHED) <= set(names)
    laws = [check for check in found if check.name not in PUBLISHED]
    assert len(laws) == 4
    assert all(check.passed for check in laws)
    assert all(check.passed is None for check in found if check.name in PUBLISHED)


def test_a_model_that_should_be_bge_m3_and_is_not_fails(tiny_m3, monkeypatch):
    # stands in for a damaged download: the model claims to be BGE-M3, and its numbers differ
    monkeypatch.setattr(checkup, "is_bge_m3", lambda encoder: True)
    found = checks(M3Encoder.from_pretrained(tiny_m3, device="cpu"))
    verdicts = {check.name: check.passed for check in found}
    assert verdicts["dense"] is False
    assert verdicts["hybrid (0.4, 0.2, 0.4)"] is False


def test_the_facts_name_heads_and_fingerprint(tiny_m3):
    encoder = M3Encoder.from_pretrained(tiny_m3, device="cpu")
    facts = model_facts(encoder)
    assert facts["fingerprint"] == encoder.fingerprint
    assert "sparse_linear.weight [1, 32]" in facts["heads"]
    assert not is_bge_m3(encoder)
    assert environment()["torch"].startswith("2.")


@pytest.mark.parametrize(
    ("running", "passed"),
    [((3, 10), False), (OLDEST_PYTHON, True), (NEWEST_PYTHON, True), ((3, 99), None)],
)
def test_a_python_is_supported_tried_or_neither(running, passed):
    assert python_check(running).passed is passed


def test_the_oldest_python_is_the_one_that_is_required():
    root = Path(checkup.__file__).parents[3]
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == f">={'.'.join(map(str, OLDEST_PYTHON))}"


@pytest.mark.slow
def test_doctor_measures_and_passes_on_m3_mini(run):
    done = run("doctor")
    assert done.code == 0, done.out + done.err
    for shown in ("published for BAAI/bge-m3 only", "fingerprint", "Python version"):
        assert shown in done.out
    assert "differs" not in done.out


def test_doctor_can_be_read_by_programs(run, tiny_m3):
    done = run("doctor", "--model", tiny_m3, "--json")
    found = json.loads(done.out)
    assert done.code == 0, done.err
    assert found["passed"] is True
    assert found["model"]["model"] == str(tiny_m3)
    assert {check["name"] for check in found["checks"]} > {*PUBLISHED, "Python version"}
    assert found["environment"]["torch"].startswith("2.")


def test_a_check_that_fails_is_said_and_is_the_exit_code(run, tiny_m3, monkeypatch):
    monkeypatch.setattr(checkup, "is_bge_m3", lambda encoder: True)
    done = run("doctor", "--model", tiny_m3)
    assert done.code == 1
    assert "differs" in done.out
    as_json = run("doctor", "--model", tiny_m3, "--json")
    assert as_json.code == 1
    assert json.loads(as_json.out)["passed"] is False


def test_speed_names_each_precision_and_what_auto_takes(tiny_m3):
    speed = compare(M3Encoder.from_pretrained(tiny_m3, device="cpu")).to_dict()
    first = speed["speeds"][0]
    assert first["precision"] == "fp32"
    assert first["terms"] == 0
    assert first["cosine"] == pytest.approx(1)
    assert all(one["query_ms"] > 0 and one["cosine"] > 0.9 for one in speed["speeds"])
    assert speed["auto"] in ("fp32", "bf16", "fp16")
    assert speed["why"]
