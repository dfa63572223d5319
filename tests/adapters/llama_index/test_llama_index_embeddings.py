"""M3Embedding and M3SparseEmbedding."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_index.core.callbacks import CBEventType, EventPayload
from llama_index.core.ingestion.pipeline import get_transformation_hash
from llama_index.core.instrumentation.events.embedding import (
    EmbeddingEndEvent,
    SparseEmbeddingEndEvent,
    SparseEmbeddingStartEvent,
)
from llama_index.core.schema import MetadataMode, TextNode

from m3_retrievers import HeadSpec, M3Encoder
from m3_retrievers.errors import MissingExtraError, MissingHeadError
from m3_retrievers.llama_index import M3Embedding, M3SparseEmbedding

QUERY = "Where is the river?"


def test_vectors_are_the_encoders(encoder: M3Encoder, nodes: list[TextNode]) -> None:
    embedding = M3Embedding(encoder=encoder)
    texts = [node.text for node in nodes]
    expected = encoder.encode_documents(texts, outputs=("dense",)).dense
    assert expected is not None
    assert embedding.get_text_embedding_batch(texts) == expected.tolist()
    assert embedding.get_text_embedding(texts[0]) == pytest.approx(expected[0].tolist(), abs=1e-5)
    query = encoder.encode_query(QUERY, outputs=("dense",)).dense
    assert query is not None
    assert embedding.get_query_embedding(QUERY) == query[0].tolist()
    assert embedding.get_text_embedding_batch([]) == []


async def test_async_vectors_equal_sync_vectors(encoder: M3Encoder, nodes: list[TextNode]) -> None:
    texts = [node.text for node in nodes]
    for embedding in (
        M3Embedding(encoder=encoder, embed_batch_size=4),
        M3SparseEmbedding(encoder=encoder, embed_batch_size=4),
    ):
        assert await embedding.aget_text_embedding_batch(
            texts
        ) == embedding.get_text_embedding_batch(texts)
        assert await embedding.aget_text_embedding(texts[0]) == embedding.get_text_embedding(
            texts[0]
        )
        assert await embedding.aget_query_embedding(QUERY) == embedding.get_query_embedding(QUERY)


def test_as_a_transformation_it_embeds_what_the_node_shows_to_models(encoder: M3Encoder) -> None:
    shown = TextNode(text="river", metadata={"title": "bridge"})
    hidden = shown.model_copy(update={"excluded_embed_metadata_keys": ["title"]})
    embedding = M3Embedding(encoder=encoder)
    embedding([shown, hidden])
    alone = [shown.get_content(MetadataMode.EMBED), "river"]
    assert alone[0] == "title: bridge\n\nriver"
    expected = embedding.get_text_embedding_batch(alone)
    assert [shown.embedding, hidden.embedding] == expected


def test_events_and_callbacks(
    encoder: M3Encoder, nodes: list[TextNode], events: Any, callbacks: Any
) -> None:
    embedding = M3Embedding(encoder=encoder, embed_batch_size=4, callback_manager=callbacks)
    embedding([*nodes])
    assert [len(e.chunks) for e in events.of(EmbeddingEndEvent)] == [4, 2]
    pairs = callbacks.handlers[0].get_event_pairs(CBEventType.EMBEDDING)
    about = pairs[0][0].payload[EventPayload.SERIALIZED]
    assert about["class_name"] == "M3Embedding"
    assert about["model_name"] == encoder.name


def test_an_ingestion_cache_tells_settings_apart(encoder: M3Encoder, nodes: list[TextNode]) -> None:
    narrow = M3Encoder.from_pretrained(encoder.name, truncate_dim=4)
    caches = [
        get_transformation_hash([*nodes], M3Embedding(encoder=one))
        for one in (encoder, M3Encoder.from_pretrained(encoder.name), narrow)
    ]
    assert caches[0] == caches[1] != caches[2]
    assert "encoder" not in M3Embedding(encoder=encoder).to_dict()


def test_sparse_rows_are_the_encoders(encoder: M3Encoder, nodes: list[TextNode]) -> None:
    sparse = M3SparseEmbedding(encoder=encoder)
    texts = [*(node.text for node in nodes), ""]
    rows = encoder.encode_documents(texts, outputs=("sparse",)).to_dicts()
    assert sparse.get_text_embedding_batch(texts) == rows
    assert rows[-1] == {} == sparse.get_query_embedding("")


def test_sparse_similarity_is_the_inner_product(encoder: M3Encoder, nodes: list[TextNode]) -> None:
    sparse = M3SparseEmbedding(encoder=encoder)
    assert sparse.similarity({1: 2.0, 2: 3.0}, {2: 5.0, 3: 7.0}) == 15.0
    assert sparse.similarity({1: 2.0}, {}) == 0
    query, text = sparse.get_query_embedding(QUERY), sparse.get_text_embedding(nodes[0].text)
    pairs = encoder.score_pairs([(QUERY, nodes[0].text)])
    assert pairs.sparse is not None
    assert sparse.similarity(query, text) == pytest.approx(float(pairs.sparse[0]), abs=1e-5)


def test_sparse_events(encoder: M3Encoder, events: Any) -> None:
    row = M3SparseEmbedding(encoder=encoder).get_query_embedding(QUERY)
    (start,) = events.of(SparseEmbeddingStartEvent)
    (end,) = events.of(SparseEmbeddingEndEvent)
    assert start.model_dict["model_name"] == encoder.name
    assert end.chunks == [QUERY]
    assert end.embeddings == [row]


def test_a_model_without_sparse_head_says_so(tiny_bert: Path) -> None:
    bare = M3Encoder.from_pretrained(tiny_bert, heads=HeadSpec(sparse=False, colbert=False))
    sparse = M3SparseEmbedding(encoder=bare)
    with pytest.raises(MissingHeadError, match="sparse"):
        sparse.get_query_embedding(QUERY)


def test_qdrants_functions_give_ids_and_weights(encoder: M3Encoder, nodes: list[TextNode]) -> None:
    functions = M3SparseEmbedding(encoder=encoder).for_qdrant()
    ids, weights = functions.documents([nodes[0].text, ""])
    matrix = encoder.encode_documents([nodes[0].text], outputs=("sparse",)).sparse
    assert matrix is not None
    assert ids == [matrix.indices.tolist(), []]
    assert np.allclose(weights[0], matrix.data)
    assert functions.queries([QUERY])[0][0]


def test_without_the_milvus_binding_the_error_says_how_to_get_it(
    encoder: M3Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "llama_index.vector_stores", None)
    with pytest.raises(MissingExtraError, match=r"m3-retrievers\[llama-index-milvus\]"):
        M3SparseEmbedding(encoder=encoder).for_milvus()
