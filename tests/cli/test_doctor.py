from m3_retrievers import M3Encoder
from m3_retrievers.cli import checkup as doctor_module
from m3_retrievers.cli.checkup import PUBLISHED, checks, environment, is_bge_m3, model_facts


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
    monkeypatch.setattr(doctor_module, "is_bge_m3", lambda encoder: True)
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
