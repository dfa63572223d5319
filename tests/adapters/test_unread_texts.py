"""Dense vectors of texts the model cannot read, in stores of the frameworks' own."""

import numpy as np
import pytest

from m3_retrievers import M3Encoder

TEXTS = ["The river rose three metres.", "แม่น้ำสูงขึ้น", "The clock was repaired.", "สะพานถูกปิด"]
pytestmark = pytest.mark.filterwarnings("ignore::m3_retrievers.errors.UnknownTokenWarning")


@pytest.fixture(scope="module")
def encoder():
    return M3Encoder.from_pretrained("m3-mini", device="cpu")


def test_langchain_gets_unit_vectors_that_match_nothing(encoder):
    from m3_retrievers.langchain import M3Embeddings

    embeddings = M3Embeddings(encoder)
    rows = np.array(embeddings.embed_documents(TEXTS))
    assert_matches_nothing(rows, np.array(embeddings.embed_query(TEXTS[0])))
    assert rows[1] @ np.array(embeddings.embed_query(TEXTS[1])) == pytest.approx(-1)


def test_llama_index_finds_readable_nodes_among_unreadable_ones(encoder):
    from llama_index.core import VectorStoreIndex
    from llama_index.core.schema import TextNode

    from m3_retrievers.llama_index import M3Embedding

    embedding = M3Embedding(encoder=encoder)
    nodes = [TextNode(id_=str(n), text=text) for n, text in enumerate(TEXTS)]
    retriever = VectorStoreIndex(nodes, embed_model=embedding).as_retriever(similarity_top_k=4)
    found = retriever.retrieve("how far did the river rise?")
    assert found[0].node_id == "0"
    assert all(np.isfinite(one.score) for one in found)
    assert all(np.isfinite(one.score) for one in retriever.retrieve(TEXTS[1]))


def assert_matches_nothing(rows, query):
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    scores = rows @ query
    assert abs(scores[[1, 3]]).max() < 0.1
    assert scores.argmax() == 0
