"""Each output from another model: one pass a model, the parts' own numbers, clear refusals."""

import pickle

import numpy as np
import pytest

from m3_retrievers import CombinedEncoder, HybridRetriever, HybridWeights, M3Encoder
from m3_retrievers.encoder.embeddings import EmbeddingsEncoder
from m3_retrievers.errors import InputError, MissingHeadError
from m3_retrievers.explain import explain
from sentences import SENTENCES

TEXTS = list(SENTENCES[:5])


class LangChainLike:
    """Vectors that are no unit vectors, queries told from documents by their first number."""

    model_name = "somebody/embeddings"

    def __init__(self):
        self.calls = []

    def embed_documents(self, texts):
        self.calls.append(list(texts))
        return [[1.0, float(len(text)), 0.0] for text in texts]

    def embed_query(self, text):
        return [2.0, float(len(text)), 0.0]


class LlamaIndexLike:
    def get_text_embedding_batch(self, texts):
        return [[1.0, float(len(text)), 0.0] for text in texts]

    def get_query_embedding(self, text):
        return [2.0, float(len(text)), 0.0]


class SentenceTransformersLike:
    def encode_document(self, texts):
        return np.array([[1.0, len(text), 0.0] for text in texts])

    def encode_query(self, texts):
        return np.array([[2.0, len(text), 0.0] for text in texts])


@pytest.fixture
def m3(tiny_m3) -> M3Encoder:
    return M3Encoder.from_pretrained(tiny_m3, device="cpu")


@pytest.fixture
def bert(tiny_bert) -> M3Encoder:
    from m3_retrievers import HeadSpec

    heads = HeadSpec(sparse=False, colbert="identity")
    return M3Encoder.from_pretrained(tiny_bert, device="cpu", heads=heads)


def test_each_output_is_that_of_its_part(m3, bert):
    both = CombinedEncoder(dense=bert, sparse=m3, colbert=bert)
    assert both.outputs == ("dense", "sparse", "colbert")
    for query in (True, False):
        method = "encode_queries" if query else "encode_documents"
        found = getattr(both, method)(TEXTS)
        expected = getattr(bert, method)(TEXTS)
        np.testing.assert_array_equal(found.dense, expected.dense)
        np.testing.assert_array_equal(found.colbert.vectors, expected.colbert.vectors)
        lexical = getattr(m3, method)(TEXTS, outputs=("sparse",)).sparse
        np.testing.assert_array_equal(found.sparse.toarray(), lexical.toarray())
    assert (both.dimension, both.vocabulary_size) == (bert.dimension, m3.vocabulary_size)
    assert both.terms([5]) == m3.terms([5])


def test_a_part_in_two_places_runs_once_a_text(m3, bert):
    passes = []
    bert.checkpoint.backbone.register_forward_pre_hook(lambda *_: passes.append(1))
    CombinedEncoder(dense=bert, sparse=m3, colbert=bert).encode_queries(["page"])
    assert len(passes) == 1


def test_only_what_is_asked_for_is_computed(m3, bert):
    passes = []
    m3.checkpoint.backbone.register_forward_pre_hook(lambda *_: passes.append(1))
    CombinedEncoder(dense=bert, sparse=m3).encode_queries(["page"], outputs=("dense",))
    assert not passes


@pytest.mark.parametrize("kind", [LangChainLike, LlamaIndexLike, SentenceTransformersLike])
def test_other_libraries_embeddings_are_a_dense_part(m3, kind):
    both = CombinedEncoder(dense=kind(), sparse=m3, colbert=m3)
    documents, query = both.encode_documents(TEXTS).dense, both.encode_query("page").dense
    raw = np.array([[1.0, len(text), 0.0] for text in TEXTS])
    np.testing.assert_allclose(documents, raw / np.linalg.norm(raw, axis=1)[:, None], rtol=1e-6)
    np.testing.assert_allclose(query, np.array([[2, 4, 0]]) / np.sqrt(20), rtol=1e-6)
    assert both.dimension == 3
    retriever = HybridRetriever(both)
    retriever.add(TEXTS)
    assert [hit.text for hit in retriever.search(TEXTS[2], k=1)] == [TEXTS[2]]


def test_embeddings_are_asked_for_each_distinct_text_once():
    embeddings = LangChainLike()
    rows = EmbeddingsEncoder(embeddings).encode_documents(["a", "bb", "a"]).dense
    assert embeddings.calls == [["a", "bb"]]
    assert np.array_equal(rows[0], rows[2])
    assert EmbeddingsEncoder(embeddings).name == "somebody/embeddings"
    assert EmbeddingsEncoder(embeddings).encode_documents([]).dense.shape == (0, 3)


@pytest.mark.parametrize("vectors", [[[1.0, float("nan")]], [[1.0], [2.0]], [1.0, 2.0]])
def test_vectors_that_are_none_are_refused(vectors):
    embeddings = LangChainLike()
    embeddings.embed_documents = lambda texts: vectors
    with pytest.raises(InputError, match="1 finite vectors of 'somebody/embeddings'"):
        EmbeddingsEncoder(embeddings).encode_documents(["page"])


def test_what_does_not_fit_is_named(m3, bert):
    with pytest.raises(InputError, match="got none"):
        CombinedEncoder()
    with pytest.raises(MissingHeadError, match="sparse= expects an encoder that makes 'sparse'"):
        CombinedEncoder(sparse=bert)
    with pytest.raises(InputError, match="embed_documents"):
        CombinedEncoder(dense=5)
    with pytest.raises(MissingHeadError, match="colbert"):
        CombinedEncoder(dense=bert, sparse=m3).encode_query("page", outputs=("colbert",))


def test_weights_are_the_papers_for_the_outputs_there_are(m3, bert):
    assert CombinedEncoder(dense=bert, sparse=m3).default_weights == HybridWeights(1, 0.3, 0)
    own = HybridWeights(dense=0.5, sparse=0.5, colbert=0)
    assert CombinedEncoder(dense=bert, sparse=m3, weights=own).default_weights == own


def test_the_fingerprint_is_that_of_the_parts(m3, bert):
    one, other = CombinedEncoder(dense=bert, sparse=m3), CombinedEncoder(dense=m3, sparse=m3)
    assert one.fingerprint != other.fingerprint
    assert pickle.loads(pickle.dumps(one)).fingerprint == one.fingerprint


def test_an_explanation_shows_terms_of_one_model_and_alignment_of_another(m3, bert):
    retriever = HybridRetriever(CombinedEncoder(dense=bert, sparse=m3, colbert=bert))
    retriever.add(TEXTS)
    [hit] = retriever.search(TEXTS[1], k=1)
    explained = explain(TEXTS[1], hit, retriever=retriever)
    assert not [note for note in explained.notes if "score is" in note]  # all add up
    for share in explained.terms["sparse"]:
        for start, end in share.document_spans:
            assert hit.text[start:end].strip()
    assert len(explained.document.vector_tokens) == explained.alignment.similarities.shape[1]
