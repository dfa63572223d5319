"""An index of one precision, asked in another: noted where it is begun, and shown."""

import pytest

from m3_retrievers import CombinedEncoder, HybridRetriever, M3Encoder
from m3_retrievers.index import LocalIndex, copy
from m3_retrievers.index.durable.index import DurableIndex
from m3_retrievers.retrieval.planning import plan_state

TEXTS = ["The river rose overnight.", "A librarian reads.", "The bridge was closed."]


@pytest.fixture(scope="module")
def bf16(tiny_m3):
    return M3Encoder.from_pretrained(tiny_m3, device="cpu", precision="bf16", keep=None)


def old_record(encoder):
    return {"name": encoder.name, "fingerprint": encoder.fingerprint}


def test_a_snapshot_tells_its_precision_and_keeps_it_when_it_is_saved_again(
    encoder, bf16, tmp_path
):
    made = HybridRetriever(bf16)
    made.add(TEXTS)
    made.save(tmp_path / "index")
    for _ in range(2):
        loaded = HybridRetriever.load(tmp_path / "index", encoder)
        assert loaded.search("river", k=3)
        assert repr(loaded).endswith("documents=3, precision='made in bf16, asked in fp32')")
        assert "made in bf16, asked in fp32" in loaded._repr_html_()
        loaded.save(tmp_path / "index")


def test_a_durable_index_tells_its_precision_whoever_adds_later(encoder, bf16, tmp_path):
    with DurableIndex(tmp_path / "my.index") as index:
        HybridRetriever.open(index, encoder).add(TEXTS)
        asked = HybridRetriever.open(index, bf16)
        asked.add(["More."])
        assert "made in fp32, asked in bf16" in repr(asked)
        assert "precision" not in repr(HybridRetriever(encoder, index))


def test_in_one_precision_only_the_table_says_it(encoder, tmp_path):
    made = HybridRetriever(encoder)
    made.save(tmp_path / "index")
    for retriever in (made, HybridRetriever.load(tmp_path / "index", encoder)):
        assert "precision" not in repr(retriever)
        assert "fp32" in retriever._repr_html_()


def test_an_index_without_a_precision_opens_as_before_and_says_nothing(encoder, bf16, tmp_path):
    plan = plan_state(HybridRetriever(encoder).plan)
    LocalIndex().save(tmp_path / "old", model=old_record(encoder), extra=plan)
    loaded = HybridRetriever.load(tmp_path / "old", bf16)
    loaded.save(tmp_path / "old")
    assert LocalIndex.load(tmp_path / "old").model == old_record(encoder)
    with DurableIndex(tmp_path / "old.index") as index:
        index.bind(old_record(encoder), extra=plan)
        opened = HybridRetriever.open(index, bf16)
        assert index.note()["model"] == old_record(encoder)
        for retriever in (loaded, opened):
            assert "precision" not in repr(retriever)


def test_a_copy_takes_it_along(encoder, bf16, tmp_path):
    made = HybridRetriever(bf16)
    made.add(TEXTS)
    made.save(tmp_path / "index")
    copy(tmp_path / "index", tmp_path / "my.index")
    back = LocalIndex()
    with DurableIndex(tmp_path / "my.index") as index:
        copy(index, back)
        for one in (index, back):
            assert "made in bf16" in repr(HybridRetriever(encoder, one))


def test_an_encoder_of_several_names_each_of_its_parts_that_states_one(encoder, bf16):
    both = CombinedEncoder(dense=bf16, sparse=encoder)
    assert both.precision == "bf16 (dense) + fp32 (sparse)"
