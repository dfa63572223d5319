"""SpladeRetriever in both frameworks, and SPLADE as the lexical leg of the ensembles."""

from pathlib import Path

import pytest
from langchain_core.documents import Document
from llama_index.core.schema import TextNode

from m3_retrievers import CombinedEncoder, M3Encoder, SpladeEncoder, langchain, llama_index
from sentences import SENTENCES
from splade_checkpoints import write_tiny_splade

TEXTS = list(SENTENCES[:6])
QUERY = "a page on the river"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_splade(tmp_path_factory.mktemp("splade"))


@pytest.fixture(scope="module")
def splade(folder: Path) -> SpladeEncoder:
    return SpladeEncoder.from_pretrained(folder, device="cpu")


@pytest.fixture(scope="module")
def expected(splade: SpladeEncoder) -> dict[str, float]:
    asked = splade.encode_query(QUERY).sparse
    scores = (splade.encode_documents(TEXTS).sparse @ asked.T).toarray().ravel()
    return {text: score for text, score in zip(TEXTS, scores.tolist(), strict=True) if score > 0}


def documents() -> list[Document]:
    return [Document(text, id=str(number)) for number, text in enumerate(TEXTS)]


def nodes() -> list[TextNode]:
    return [TextNode(text=text, id_=str(number)) for number, text in enumerate(TEXTS)]


def test_langchains_finds_by_the_models_terms(splade, expected):
    found = langchain.SpladeRetriever.from_documents(documents(), splade, k=6).invoke(QUERY)
    assert {doc.page_content for doc in found} == set(expected)
    for doc in found:
        score = doc.metadata["scores"]["sparse"]
        assert score == pytest.approx(expected[doc.page_content], rel=1e-5)


def test_llama_indexes_finds_by_the_models_terms(splade, expected):
    found = llama_index.SpladeRetriever.from_nodes(nodes(), splade, k=6).retrieve(QUERY)
    assert {hit.node.get_content() for hit in found} == set(expected)
    for hit in found:
        assert hit.score == pytest.approx(expected[hit.node.get_content()], rel=1e-5)


def test_a_name_becomes_a_splade_model_in_both(folder, expected):
    best = max(expected, key=lambda text: expected[text])
    [doc] = langchain.SpladeRetriever.from_documents(documents(), str(folder), k=1).invoke(QUERY)
    [hit] = llama_index.SpladeRetriever.from_nodes(nodes(), str(folder), k=1).retrieve(QUERY)
    assert doc.page_content == hit.node.get_content() == best


def test_it_is_the_lexical_leg_of_both_ensembles(splade, expected, tiny_m3):
    m3 = M3Encoder.from_pretrained(tiny_m3, device="cpu")
    encoder = CombinedEncoder(dense=m3, sparse=splade, colbert=m3)
    ensemble = langchain.M3EnsembleRetriever.from_documents(documents(), encoder=encoder, k=6)
    other = llama_index.M3EnsembleRetriever.from_nodes(nodes(), encoder=encoder, k=6)
    found = {doc.page_content: doc.metadata["scores"] for doc in ensemble.invoke(QUERY)}
    again = {hit.node.get_content(): hit.metadata["scores"] for hit in other.retrieve(QUERY)}
    assert found.keys() == again.keys() == set(TEXTS)
    for text, scores in found.items():
        assert scores["sparse"] == pytest.approx(expected.get(text, 0), rel=1e-5)
        assert scores == pytest.approx(again[text], rel=1e-6)
