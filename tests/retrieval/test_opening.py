"""HybridRetriever.open: what is kept beside the index, and what is refused."""

import pytest

from checkpoints import write_tiny_m3
from m3_retrievers import BM25, HybridRetriever, HybridWeights, M3Encoder, ReciprocalRankFusion
from m3_retrievers.errors import IndexCorruptError, IndexModelError, InputError
from m3_retrievers.index.durable.index import DurableIndex
from m3_retrievers.index.local import LocalIndex
from m3_retrievers.types.plan import Recall

TEXTS = ["The river rose overnight.", "A librarian reads.", "The bridge was closed."]


@pytest.fixture(scope="module")
def encoder(tiny_m3):
    return M3Encoder.from_pretrained(tiny_m3)


def close(*retrievers):
    for retriever in retrievers:
        retriever.index.close()


def test_what_was_added_is_there_when_it_is_opened_again(encoder, tmp_path):
    first = HybridRetriever.open(tmp_path / "my.index", encoder)
    ids = first.add(TEXTS)
    first.delete([ids[1]])
    expected = first.search("river", k=3)
    close(first)
    again = HybridRetriever.open(tmp_path / "my.index", encoder)
    assert again.search("river", k=3) == expected
    assert len(again) == 2
    close(again)


def test_the_plan_is_kept_and_an_option_given_changes_it_from_then_on(encoder, tmp_path):
    path = tmp_path / "my.index"
    options = {
        "legs": ("dense", "bm25"),
        "recall": Recall(dense=7, lexical=9),
        "weights": HybridWeights(dense=0.5, sparse=0.2, colbert=0.0),
        "bm25": BM25(k1=0.9),
    }
    first = HybridRetriever.open(path, encoder, **options)
    first.add(TEXTS)
    again = HybridRetriever.open(path, encoder)
    assert again.plan == first.plan
    assert again.index.weighting.k1 == 0.9
    assert again.search("river", k=3) == first.search("river", k=3)
    changed = HybridRetriever.open(path, encoder, fusion=ReciprocalRankFusion(k=3))
    assert changed.legs == first.legs
    assert changed.recall == first.recall
    last = HybridRetriever.open(path, encoder)
    assert last.fusion == changed.fusion
    close(first, again, changed, last)


def test_without_colbert_in_the_weights_no_token_vectors_are_kept(encoder, tmp_path):
    weights = HybridWeights(dense=1.0, sparse=0.3, colbert=0.0)
    retriever = HybridRetriever.open(tmp_path / "my.index", encoder, weights=weights)
    assert retriever.index.modes == {"dense", "sparse"}
    close(retriever)


def test_an_address_names_the_same_file_as_its_path(encoder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    named = HybridRetriever.open("sqlite:./my.index", encoder)
    named.add(TEXTS)
    close(named)
    assert [path.name for path in tmp_path.iterdir()] == ["my.index"]
    plain = HybridRetriever.open(tmp_path / "my.index", encoder)
    assert len(plain) == len(TEXTS)
    close(plain)


def test_an_index_that_recomputes_encodes_the_candidates(encoder, tmp_path):
    index = DurableIndex(tmp_path / "my.index", colbert="recompute")
    retriever = HybridRetriever.open(index, encoder)
    local = HybridRetriever(encoder)
    for one in (retriever, local):
        one.add(TEXTS, ids=["a", "b", "c"])
    found, expected = retriever.search("river", k=3), local.search("river", k=3)
    assert [hit.id for hit in found] == [hit.id for hit in expected]
    assert found[0].score == pytest.approx(expected[0].score, abs=1e-3)
    close(retriever)


def test_another_model_is_refused_however_the_retriever_is_made(encoder, tmp_path):
    close(HybridRetriever.open(tmp_path / "my.index", encoder))
    folder = write_tiny_m3(tmp_path / "model", seed=5)
    other = M3Encoder.from_pretrained(folder)
    with pytest.raises(IndexModelError, match="fingerprint"):
        HybridRetriever.open(tmp_path / "my.index", other)
    with (
        DurableIndex(tmp_path / "my.index") as index,
        pytest.raises(IndexModelError, match="fingerprint"),
    ):
        HybridRetriever(other, index)


def test_legs_and_bm25_that_the_index_has_not_are_refused(encoder, tmp_path):
    close(HybridRetriever.open(tmp_path / "my.index", encoder))
    with pytest.raises(InputError, match="bm25"):
        HybridRetriever.open(tmp_path / "my.index", encoder, legs=("dense", "bm25"))
    with pytest.raises(InputError, match="weighting"):
        HybridRetriever.open(tmp_path / "my.index", encoder, bm25=BM25())


@pytest.mark.parametrize(
    "kept",
    [
        {"legs": 3},
        {"legs": ["colour"]},
        {"recall": {"dense": -1}},
        {"recall": {"depth": 5}},
        {"weights": [1]},
        {"fusion": {"kind": "magic"}},
        {"fusion": "RRF"},
    ],
)
def test_a_plan_that_was_changed_is_refused(encoder, tmp_path, kept):
    model = {"name": encoder.name, "fingerprint": encoder.fingerprint}
    with DurableIndex(tmp_path / "my.index") as index:
        index.bind(model, extra=kept)
        with pytest.raises(IndexCorruptError, match="plan"):
            HybridRetriever.open(index, encoder)


def test_an_index_in_memory_is_nothing_to_open(encoder):
    with pytest.raises(InputError, match="in memory"):
        HybridRetriever.open(LocalIndex(), encoder)


def test_a_subword_bm25_counts_with_the_models_own_tokenizer_again(encoder, tmp_path):
    path = tmp_path / "my.index"
    options = {"legs": ("dense", "bm25"), "bm25": BM25(tokenizer=encoder.tokenizer)}
    first = HybridRetriever.open(path, encoder, **options)
    first.add(TEXTS)
    again = HybridRetriever.open(path, encoder)
    assert again.search("river", k=3) == first.search("river", k=3)
    close(first, again)


def test_saving_a_durable_index_says_that_nothing_needs_it(encoder, tmp_path):
    retriever = HybridRetriever.open(tmp_path / "my.index", encoder)
    with pytest.raises(InputError, match="Nothing needs saving"):
        retriever.save(tmp_path / "folder")
    close(retriever)


def test_an_engines_address_opens_that_engine_and_not_a_file_of_that_name(tiny_m3, tmp_path):
    pytest.importorskip("qdrant_edge", reason="Qdrant without a server")
    encoder = M3Encoder.from_pretrained(tiny_m3, device="cpu")
    address = f"qdrant:{tmp_path / 'data'}"
    weights = HybridWeights(dense=1, sparse=1, colbert=0)
    retriever = HybridRetriever.open(address, encoder, weights=weights)
    retriever.add(["the river rose", "a librarian"], ids=["river", "librarian"])
    before = retriever.search("the river rose", k=2)
    retriever.index.close()
    again = HybridRetriever.open(address, encoder)
    assert type(again.index).__name__ == "QdrantIndex"
    assert again.index.modes == {"dense", "sparse"}
    assert again.weights == weights
    assert [hit.id for hit in again.search("the river rose", k=2)] == [hit.id for hit in before]
    again.index.close()
