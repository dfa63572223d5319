"""M3SparseRetriever and BM25Retriever."""

import math
from copy import deepcopy
from typing import Any

import pytest
from llama_index.core.instrumentation.events.retrieval import RetrievalEndEvent
from llama_index.core.schema import MetadataMode, TextNode
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters

from m3_retrievers import BM25, M3Encoder
from m3_retrievers.errors import DuplicateIdError, FilterError, InputError
from m3_retrievers.llama_index import BM25Retriever, M3SparseRetriever

QUERY = "the river"
EVEN = MetadataFilters(filters=[MetadataFilter(key="even", value="yes")])


@pytest.fixture(params=["m3", "bm25"])
def make(request: pytest.FixtureRequest, encoder: M3Encoder) -> Any:
    if request.param == "m3":
        return lambda nodes, **options: M3SparseRetriever.from_nodes(
            nodes, encoder=encoder, **options
        )
    return BM25Retriever.from_nodes


def test_sparse_scores_are_score_pairs(encoder: M3Encoder, nodes: list[TextNode]) -> None:
    found = M3SparseRetriever.from_nodes(nodes, encoder=encoder, k=6).retrieve(QUERY)
    pairs = encoder.score_pairs([(QUERY, node.text) for node in nodes])
    assert pairs.sparse is not None
    expected = {str(n): float(s) for n, s in enumerate(pairs.sparse) if s > 0}
    assert {hit.node_id: hit.score for hit in found} == pytest.approx(expected, abs=1e-5)
    assert all(hit.metadata["scores"] == {"sparse": hit.score} for hit in found)


def test_bm25_is_the_bm25_it_is_made_with() -> None:
    nodes = [TextNode(id_="a", text="river bank"), TextNode(id_="b", text="old clock")]
    (hit,) = BM25Retriever.from_nodes(nodes, bm25=BM25(variant="okapi", idf="lucene")).retrieve(
        "river"
    )
    # one of two documents, both of average length, holds the term once: ln(1 + 1.5/1.5) · 1
    assert hit.node_id == "a"
    assert hit.score == pytest.approx(math.log(2))
    assert hit.metadata["scores"] == {"bm25": hit.score}


def test_metadata_is_searched_as_it_is_embedded(make: Any) -> None:
    shown = TextNode(id_="shown", text="page", metadata={"title": "tweezers"})
    hidden = TextNode(
        id_="hidden",
        text="page",
        metadata={"title": "tweezers"},
        excluded_embed_metadata_keys=["title"],
    )
    found = make([hidden, shown]).retrieve("tweezers")
    assert found[0].node_id == "shown"
    assert found[0].get_content(MetadataMode.EMBED) == shown.get_content(MetadataMode.EMBED)


def test_k_filters_and_ties(make: Any, nodes: list[TextNode]) -> None:
    assert len(make(nodes, k=1).retrieve(QUERY)) == 1
    assert {hit.node.metadata["even"] for hit in make(nodes, filters=EVEN).retrieve(QUERY)} == {
        "yes"
    }
    same = [TextNode(id_=id, text="the river") for id in "cab"]
    assert [hit.node_id for hit in make(same).retrieve(QUERY)] == list("cab")


def test_nodes_are_not_touched(make: Any, nodes: list[TextNode]) -> None:
    before = deepcopy(nodes)
    retriever = make(nodes)
    first = retriever.retrieve(QUERY)
    first[0].node.metadata["mine"] = True
    assert nodes == before
    assert "mine" not in retriever.retrieve(QUERY)[0].node.metadata


async def test_async_equals_sync_and_shows_up(
    make: Any, nodes: list[TextNode], events: Any
) -> None:
    retriever = make(nodes)
    found = retriever.retrieve(QUERY)
    assert await retriever.aretrieve(QUERY) == found
    assert [event.nodes for event in events.of(RetrievalEndEvent)] == [found, found]


def test_errors(make: Any, nodes: list[TextNode]) -> None:
    with pytest.raises(DuplicateIdError, match="'0'"):
        make([nodes[0], nodes[0]])
    with pytest.raises(InputError, match="k expects an integer"):
        make(nodes, k=0)
    with pytest.raises(FilterError, match=r"\$near"):
        make(nodes, filters={"n": {"$near": 1}})


def test_no_nodes_give_no_results(make: Any) -> None:
    assert make([]).retrieve(QUERY) == []
