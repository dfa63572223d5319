"""The README's tables: what its filters admit, and that every "here" of old → new runs."""

import pytest

import readme
from m3_retrievers import HybridRetriever, HybridWeights, M3Encoder, ReciprocalRankFusion, scoring
from m3_retrievers.errors import FilterError
from m3_retrievers.index.filters import compile_filter

pytestmark = pytest.mark.slow

FILTERS = readme.sections()["Filters"]
CONVERSIONS = readme.tables(readme.sections()["Coming from something else"])
TEXTS = ["The river rose three metres.", "A librarian finds the page.", "The river fell."]
# what a row of the filters' table admits, and what it does not
ADMITS = {
    '{"lang": "en"}': ([{"lang": "en"}, {"lang": ["de", "en"]}], [{"lang": "de"}, {}]),
    '{"lang": {"$eq": "en"}}': ([{"lang": "en"}, {"lang": ["de", "en"]}], [{"lang": "de"}, {}]),
    '{"lang": {"$ne": "en"}}': ([{"lang": "de"}, {}], [{"lang": "en"}]),
    '{"year": {"$gte": 2020, "$lt": 2024}}': (
        [{"year": 2020}, {"year": 2023.5}],
        [{"year": 2024}, {"year": 2019}, {"year": "2021"}, {}],
    ),
    '{"lang": {"$in": ["en", "de"]}}': ([{"lang": "en"}, {"lang": ["de"]}], [{"lang": "fr"}, {}]),
    '{"year": {"$exists": True}}': ([{"year": None}, {"year": 1}], [{}]),
    '{"tags": {"$empty": True}}': (
        [{}, {"tags": None}, {"tags": ""}, {"tags": []}],
        [{"tags": ["a"]}, {"tags": 0}],
    ),
    '{"title": {"$text": "csv"}}': ([{"title": "on csv files"}], [{"title": "CSV"}, {}]),
    '{"year": {"$not": {"$lt": 2020}}}': ([{"year": 2020}, {}], [{"year": 2019}]),
    '{"$or": [{"lang": "en"}, {"year": 2024}]}': (
        [{"lang": "en"}, {"lang": "de", "year": 2024}],
        [{"lang": "de", "year": 2023}, {}],
    ),
}


def test_the_filters_of_the_table_admit_what_it_says():
    [rows] = readme.tables(FILTERS)
    written = [code for row in rows for code in readme.spans(row[0])]
    assert written == list(ADMITS)
    for code in written:
        passes = compile_filter(eval(code))
        admitted, refused = ADMITS[code]
        assert [passes(metadata) for metadata in admitted] == [True] * len(admitted), code
        assert [passes(metadata) for metadata in refused] == [False] * len(refused), code


@pytest.mark.parametrize("wrong", [{"$nothing": []}, {"field": {"$nothing": 1}}])
def test_the_table_has_every_operator(wrong):
    with pytest.raises(FilterError, match="knows") as raised:
        compile_filter(wrong)
    known = str(raised.value).split(" knows ")[1].split(" here")[0].split()
    assert [name for name in known if name not in FILTERS] == []


@pytest.fixture
def names(tiny_m3, tmp_path, monkeypatch):
    """What the tables speak of: a model, texts, and what was made of them."""
    monkeypatch.chdir(tmp_path)
    encoder = M3Encoder.from_pretrained(tiny_m3)
    encoded = encoder.encode_documents(TEXTS)
    hybrid = HybridRetriever(encoder)
    hybrid.add(TEXTS)
    return {
        "encoder": encoder,
        "encoded": encoded,
        "hybrid": hybrid,
        "texts": TEXTS,
        "queries": TEXTS[:1],
        "pairs": [(TEXTS[0], text) for text in TEXTS],
        "a": encoder.encode_queries(TEXTS),
        "b": encoded,
        "scores": encoder.score_pairs([(TEXTS[0], TEXTS[1])]),
        "scoring": scoring,
        "HybridRetriever": HybridRetriever,
        "HybridWeights": HybridWeights,
        "M3Encoder": M3Encoder,
        "ReciprocalRankFusion": ReciprocalRankFusion,
    }


def run(table, names, tiny_m3):
    """Run every piece of code in a table's last column; return how many there were."""
    pieces = [code for row in table for code in readme.spans(row[-1])]
    for code in pieces:
        eval(code.replace("BAAI/bge-m3", str(tiny_m3)), names)
    return len(pieces)


def test_what_stands_for_flag_embedding_runs(names, tiny_m3):
    assert run(CONVERSIONS[0], names, tiny_m3) == 13


def test_what_stands_for_bge_m3_index_runs(names, tiny_m3):
    from llama_index.core.llms import MockLLM
    from llama_index.core.query_engine import RetrieverQueryEngine
    from llama_index.core.schema import TextNode

    from m3_retrievers.llama_index import M3EnsembleRetriever, M3VectorStore

    nodes = [TextNode(id_=str(n), text=text) for n, text in enumerate(TEXTS)]
    names |= {
        "M3EnsembleRetriever": M3EnsembleRetriever,
        "M3VectorStore": M3VectorStore,
        "RetrieverQueryEngine": RetrieverQueryEngine,
        "llm": MockLLM(),
        "nodes": nodes,
        "retriever": M3EnsembleRetriever.from_nodes(nodes, encoder=names["encoder"]),
        "id": "0",
    }
    assert run(CONVERSIONS[1], names, tiny_m3) == 7


def test_what_stands_for_langchains_ensemble_runs(names, tiny_m3):
    from langchain_core.documents import Document
    from langchain_core.vectorstores import InMemoryVectorStore

    from m3_retrievers import langchain as room

    documents = [Document(text) for text in TEXTS]
    store = InMemoryVectorStore(room.M3Embeddings(names["encoder"]))
    store.add_documents(documents)
    names |= {name: getattr(room, name) for name in room.__all__}
    names |= {
        "documents": documents,
        "store": store,
        "bm25": room.BM25Retriever.from_documents(documents),
    }
    assert run(CONVERSIONS[2], names, tiny_m3) == 8
