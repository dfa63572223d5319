"""One table for both frameworks: the same question gets the same answer.

Where it is an error, it is the same class with the same text, but for the framework's own
words: documents or nodes, filter or filters, and its classes' names.
"""

import copy
import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from llama_index.core.schema import NodeWithScore, TextNode

import m3_retrievers
import m3_retrievers.langchain as lc
import m3_retrievers.llama_index as li
from m3_retrievers import (
    BM25,
    HybridRetriever,
    HybridWeights,
    LocalIndex,
    M3Encoder,
    Recall,
    ReciprocalRankFusion,
)
from m3_retrievers.errors import InputError, M3Error, UnknownNameError

TEXTS = (
    "The river rose three metres overnight.",
    "A librarian finds the one page that matters.",
    "The bridge over the river was closed before dawn.",
)
QUERY = "Where is the river?"


@dataclass(frozen=True)
class Room:
    """One framework: its package, its words, and its spelling of the same calls."""

    names: Any
    from_documents: str
    words: dict[str, str]
    made: Callable[[str, int], Any]
    filter: str

    def documents(self, *texts: str) -> list[Any]:
        return [self.made(text, n) for n, text in enumerate(texts or TEXTS)]

    def ensemble(self, *args: Any, **options: Any) -> Any:
        return getattr(self.names.M3EnsembleRetriever, self.from_documents)(*args, **options)

    def sparse(self, *args: Any, **options: Any) -> Any:
        return getattr(self.names.M3SparseRetriever, self.from_documents)(*args, **options)

    def bm25(self, *args: Any, **options: Any) -> Any:
        return getattr(self.names.BM25Retriever, self.from_documents)(*args, **options)

    def store(self, *args: Any, **options: Any) -> Any:
        return getattr(self.names.M3VectorStore, self.from_documents)(*args, **options)

    def ask(self, retriever: Any, query: Any = QUERY, **options: Any) -> list[Any]:
        if "filter" in options:
            options[self.filter] = options.pop("filter")
        call = retriever.invoke if self.names is lc else retriever.retrieve
        return [_answer(one) for one in call(query, **options)]

    def reranker(self, *args: Any, **options: Any) -> Any:
        name = "M3ColbertReranker" if self.names is lc else "M3ColbertRerank"
        return getattr(self.names, name)(*args, **options)

    def hybrid_reranker(self, *args: Any, **options: Any) -> Any:
        name = "M3HybridReranker" if self.names is lc else "M3HybridRerank"
        return getattr(self.names, name)(*args, **options)

    def embeddings(self, *args: Any, **options: Any) -> Any:
        name = "M3Embeddings" if self.names is lc else "M3Embedding"
        return getattr(self.names, name)(*args, **options)

    def plain(self, error: Exception) -> str:
        """Return an error's text in neither framework's words; what else it takes is left out."""
        text = re.sub(r" It takes .*| Give the others by name: .*", "", str(error))
        for own, plain in self.words.items():
            text = re.sub(own, plain, text)
        return text


def _answer(one: Any) -> tuple[str, dict[str, Any]]:
    if isinstance(one, Document):
        return one.page_content, {**one.metadata, "id": one.id}
    assert isinstance(one, NodeWithScore)
    return one.text, {**one.metadata, "id": one.node_id}


def _node(text: str, n: int) -> TextNode:
    return TextNode(
        id_=str(n), text=text, metadata={"n": n}, excluded_embed_metadata_keys=["n", "store"]
    )


LANGCHAIN = Room(
    lc,
    "from_documents",
    {
        r"LangChain Documents": "documents",
        r"Wrap a text as .*|In a chain, pick .*": "…",
        r"M3ColbertReranker": "the reranker",
        r"M3HybridReranker": "the reranker",
        r"\.invoke": ".ask",
        r"BaseDocumentCompressor": "reranker of the framework",
    },
    lambda text, n: Document(id=str(n), page_content=text, metadata={"n": n}),
    "filter",
)
LLAMA_INDEX = Room(
    li,
    "from_nodes",
    {
        r"LlamaIndex nodes": "documents",
        r"\bnodes\b": "documents",
        r"from_nodes": "from_documents",
        r"Wrap a text as .*|Pass a text, or .*": "…",
        r"M3ColbertRerank": "the reranker",
        r"M3HybridRerank": "the reranker",
        r"\.retrieve": ".ask",
        r"BaseNodePostprocessor": "reranker of the framework",
        r"filters expects": "filter expects",
        r"TextNode|NodeWithScore": "Document",
    },
    _node,
    "filters",
)

ERRORS: dict[str, Callable[[Room, M3Encoder], Any]] = {
    "k is 0": lambda room, encoder: room.ensemble(room.documents(), encoder, k=0),
    "k is True": lambda room, encoder: room.ensemble(room.documents(), encoder, k=True),
    "k is a string": lambda room, encoder: room.bm25(room.documents(), k="3"),
    "k is 0 in one call": lambda room, encoder: room.ask(room.bm25(room.documents()), k=0),
    "k is 1.5 in one call": lambda room, encoder: room.ask(
        room.ensemble(room.documents(), encoder), k=1.5
    ),
    "top_n is 0": lambda room, encoder: room.reranker(encoder, top_n=0),
    "rerank_depth is 0": lambda room, encoder: room.ensemble([], encoder, rerank_depth=0),
    "no encoder": lambda room, encoder: room.ensemble(room.documents(), None),
    "a number for an encoder": lambda room, encoder: room.embeddings(7),
    "the class for an encoder": lambda room, encoder: room.reranker(M3Encoder),
    "a name of no model": lambda room, encoder: room.sparse(room.documents(), "./no/such/model"),
    "a name of no model in a reranker": lambda room, encoder: room.reranker("./no/such/model"),
    "hybrid is a string": lambda room, encoder: room.names.M3EnsembleRetriever("x"),
    "hybrid is a store": lambda room, encoder: room.names.M3EnsembleRetriever(hybrid=[1]),
    "neither source": lambda room, encoder: room.names.M3EnsembleRetriever(),
    "no retrievers": lambda room, encoder: room.names.M3EnsembleRetriever(retrievers=[]),
    "both sources": lambda room, encoder: room.names.M3EnsembleRetriever(
        HybridRetriever(encoder), retrievers=[room.bm25([])]
    ),
    "a retriever that is none": lambda room, encoder: room.names.M3EnsembleRetriever(
        retrievers=["chroma"]
    ),
    "one retriever, no list": lambda room, encoder: room.names.M3EnsembleRetriever(retrievers="x"),
    "weights with hybrid": lambda room, encoder: room.names.M3EnsembleRetriever(
        HybridRetriever(encoder), weights=[1.0]
    ),
    "too few weights": lambda room, encoder: room.names.M3EnsembleRetriever(
        retrievers=[room.bm25([]), room.bm25([])], weights=[1.0]
    ),
    "HybridWeights over retrievers": lambda room, encoder: room.names.M3EnsembleRetriever(
        retrievers=[room.bm25([])], weights=HybridWeights()
    ),
    "an id_key that nobody has": lambda room, encoder: room.ask(
        room.names.M3EnsembleRetriever(retrievers=[room.bm25(room.documents())], id_key="pk")
    ),
    "a reranker that is none": lambda room, encoder: room.ensemble([], encoder, reranker="cohere"),
    "scores of another style": lambda room, encoder: room.ensemble([], encoder, scores="yes"),
    "scores of a reranker": lambda room, encoder: room.reranker(encoder, scores=True),
    "a misspelt option": lambda room, encoder: room.ensemble(room.documents(), encoder, top_k=3),
    "a misspelt option of bm25": lambda room, encoder: room.bm25(room.documents(), tokeniser="en"),
    "a misspelt option of sparse": lambda room, encoder: room.sparse([], encoder, weight=1),
    "a misspelt option of the class": lambda room, encoder: room.names.M3EnsembleRetriever(
        HybridRetriever(encoder), top_k=3
    ),
    "a misspelt option of a reranker": lambda room, encoder: room.reranker(encoder, top_k=3),
    "another package's option": lambda room, encoder: room.ensemble([], encoder, embed_model=1),
    "a misspelt option of a store": lambda room, encoder: room.store([], encoder, leg=["dense"]),
    "an unknown leg": lambda room, encoder: room.ensemble([], encoder, legs=["colbert"]),
    "weights in a list": lambda room, encoder: room.ensemble([], encoder, weights=[1, 1, 1]),
    "bm25 without its leg": lambda room, encoder: room.ensemble([], encoder, bm25=BM25()),
    "a string for documents": lambda room, encoder: room.ensemble("a text", encoder),
    "None for documents": lambda room, encoder: room.ensemble(None, encoder),
    "strings for documents": lambda room, encoder: room.ensemble(["a text"], encoder),
    "one document for documents": lambda room, encoder: room.sparse(room.documents()[0], encoder),
    "numbers for documents": lambda room, encoder: room.bm25([1]),
    "an id twice": lambda room, encoder: room.ensemble(room.documents() * 2, encoder),
    "an unknown operator": lambda room, encoder: room.ask(
        room.ensemble(room.documents(), encoder), filter={"n": {"$near": 1}}
    ),
    "an operator without dollar": lambda room, encoder: room.ask(
        room.bm25(room.documents()), filter={"n": {"gte": 1}}
    ),
    "None for a question": lambda room, encoder: room.ask(room.bm25([]), None),
    "a mapping for a question": lambda room, encoder: room.ask(
        room.ensemble([], encoder), {"question": QUERY}
    ),
    "a store of nothing known": lambda room, encoder: room.names.M3VectorStore([1]),
    "saving retrievers": lambda room, encoder: room.names.M3EnsembleRetriever(
        retrievers=[room.bm25([])]
    ).save("nowhere"),
    "no encoder at all": lambda room, encoder: room.sparse(room.documents()),
    "k by position": lambda room, encoder: room.ensemble(room.documents(), encoder, 3),
    "another name for the encoder": lambda room, encoder: room.ensemble([], embedding=encoder),
    "another name for a rerankers encoder": lambda room, encoder: room.reranker(model="m3-mini"),
    "a mode of fusion": lambda room, encoder: room.names.M3EnsembleRetriever(
        retrievers=[room.bm25([])], retriever_weights=[1]
    ),
    "a fusion by name": lambda room, encoder: room.ensemble([], encoder, fusion="rrf"),
    "a fusion by name over retrievers": lambda room, encoder: room.names.M3EnsembleRetriever(
        retrievers=[room.bm25([])], fusion="rrf"
    ),
    "a fusion's class": lambda room, encoder: room.names.M3EnsembleRetriever(
        retrievers=[room.bm25([])], fusion=ReciprocalRankFusion
    ),
    "retrievers by name": lambda room, encoder: room.names.M3EnsembleRetriever(
        retrievers={"bm25": "a retriever"}
    ),
    "documents for an index": lambda room, encoder: room.names.BM25Retriever(["a text"]),
    "an index without the leg": lambda room, encoder: room.names.M3SparseRetriever(
        LocalIndex(modes=("dense",)), encoder
    ),
    "a retriever for an index": lambda room, encoder: room.names.M3EnsembleRetriever.from_index(
        HybridRetriever(encoder), encoder
    ),
    "an encoder for bm25": lambda room, encoder: room.bm25([], encoder=encoder),
    "a language": lambda room, encoder: room.bm25([], language="german"),
    "weights in a list to a reranker": lambda room, encoder: room.hybrid_reranker(
        encoder, weights=[1, 1, 1]
    ),
    "weights of an unknown mode": lambda room, encoder: room.hybrid_reranker(
        encoder, weights={"dens": 1}
    ),
    "a mapping of documents": lambda room, encoder: room.bm25({"a": "a document"}),
    "k set to 0": lambda room, encoder: setattr(room.bm25([]), "k", 0),
    "top_n set to 0": lambda room, encoder: setattr(room.reranker(encoder), "top_n", 0),
    "scores set to a style that is none": lambda room, encoder: setattr(
        room.ensemble([], encoder), "scores", "yes"
    ),
    "top_k set": lambda room, encoder: setattr(room.ensemble([], encoder), "top_k", 3),
    "another option in one call": lambda room, encoder: room.ask(
        room.ensemble([], encoder), top_k=3
    ),
    "loading nothing": lambda room, encoder: room.names.M3EnsembleRetriever.load(
        "./no/such/folder", encoder
    ),
}


@pytest.mark.parametrize("question", ERRORS)
def test_the_same_mistake_gets_the_same_answer(question: str, encoder: M3Encoder) -> None:
    said = []
    for room in (LANGCHAIN, LLAMA_INDEX):
        with pytest.raises(M3Error) as refused:
            ERRORS[question](room, encoder)
        said.append((type(refused.value), room.plain(refused.value)))
    assert said[0] == said[1]


ANSWERS: dict[str, Callable[[Room, M3Encoder], Any]] = {
    "the ensemble": lambda room, encoder: room.ask(room.ensemble(room.documents(), encoder)),
    "by position": lambda room, encoder: room.ask(room.sparse(room.documents(), encoder, k=1)),
    "by keyword": lambda room, encoder: room.ask(room.sparse(room.documents(), encoder=encoder)),
    "by a model's name": lambda room, encoder: room.ask(
        room.ensemble(room.documents(), encoder.name)
    ),
    "an empty question": lambda room, encoder: room.ask(
        room.ensemble(room.documents(), encoder), ""
    ),
    "an empty question to bm25": lambda room, encoder: room.ask(room.bm25(room.documents()), ""),
    "no documents": lambda room, encoder: room.ask(room.ensemble([], encoder)),
    "k in one call": lambda room, encoder: room.ask(room.ensemble(room.documents(), encoder), k=1),
    "an unknown key": lambda room, encoder: room.ask(
        room.ensemble(room.documents(), encoder), filter={"lang": "en"}
    ),
    "a filter in one call": lambda room, encoder: room.ask(
        room.bm25(room.documents()), filter={"n": {"$gt": 0}}
    ),
    "flat scores": lambda room, encoder: room.ask(
        room.ensemble(room.documents(), encoder, scores="flat")
    ),
    "no scores": lambda room, encoder: room.ask(room.bm25(room.documents(), scores="off")),
    "all options": lambda room, encoder: room.ask(
        room.ensemble(
            room.documents(),
            encoder,
            k=2,
            legs=["dense", "bm25"],
            recall=Recall(dense=2, lexical=2),
            weights=HybridWeights(dense=1, sparse=2, colbert=0),
            tokenizer="english",
            batch_size=1,
            show_progress=False,
        )
    ),
    "reranked": lambda room, encoder: room.ask(
        room.ensemble(room.documents(), encoder, reranker=room.reranker(encoder), k=2)
    ),
    "reranked without scores": lambda room, encoder: room.ask(
        room.ensemble(room.documents(), encoder, reranker=room.reranker(encoder), scores="off")
    ),
    "weights by position": lambda room, encoder: room.ask(
        room.names.M3EnsembleRetriever(
            retrievers=[room.bm25(room.documents()), room.sparse(room.documents(), encoder)],
            weights=[0.9, 0.1],
        )
    ),
    "fused and reranked": lambda room, encoder: room.ask(
        room.names.M3EnsembleRetriever(
            retrievers=[room.bm25(room.documents()), room.sparse(room.documents(), encoder)],
            reranker=room.reranker(encoder),
            rerank_depth=2,
            k=2,
            scores="flat",
        ),
        filter={"n": {"$ne": 1}},
    ),
    "an encoder in embeddings": lambda room, encoder: room.ask(
        room.ensemble(room.documents(), room.embeddings(encoder))
    ),
    "weights in a mapping": lambda room, encoder: room.ask(
        room.ensemble(room.documents(), encoder, weights={"dense": 1, "sparse": 0.5, "colbert": 0})
    ),
    "an id in a store": lambda room, encoder: tuple(
        id in room.store(room.documents(), encoder) for id in ("1", "9", None)
    ),
    "documents under their other name": lambda room, encoder: room.ask(
        room.names.BM25Retriever.from_documents(room.documents())
    ),
    "a store": lambda room, encoder: (
        len(room.store([], encoder)),
        bool(room.store([], encoder)),
        room.store(room.documents(), encoder, legs=["dense"], batch_size=2).ids,
    ),
    "a store of a name": lambda room, encoder: len(room.names.M3VectorStore(encoder.name)),
    "a store of embeddings": lambda room, encoder: len(
        room.names.M3VectorStore(room.embeddings(encoder))
    ),
}


@pytest.mark.parametrize("question", ANSWERS)
def test_the_same_question_gets_the_same_answer(question: str, encoder: M3Encoder) -> None:
    here, there = (ANSWERS[question](room, encoder) for room in (LANGCHAIN, LLAMA_INDEX))
    for answers in (here, there):
        for _, metadata in answers if isinstance(answers, list) else ():
            metadata.pop("relevance_score", None)  # LangChain's name for a reranker's score
    assert here == there


@pytest.mark.parametrize("room", [LANGCHAIN, LLAMA_INDEX], ids=["langchain", "llama_index"])
def test_an_ensemble_is_saved_and_loaded(room: Room, encoder: M3Encoder, tmp_path: Path) -> None:
    made = room.ensemble(room.documents(), encoder, legs=["dense"], k=2)
    made.save(tmp_path / "index")
    again = room.names.M3EnsembleRetriever.load(tmp_path / "index", encoder.name, k=2)
    assert room.ask(again) == room.ask(made)
    assert again.hybrid.legs == ("dense",)


@pytest.mark.parametrize("room", [LANGCHAIN, LLAMA_INDEX], ids=["langchain", "llama_index"])
def test_a_rerankers_score_is_among_the_scores(room: Room, encoder: M3Encoder) -> None:
    documents = room.documents()
    reranked = room.ask(room.ensemble(documents, encoder, reranker=room.reranker(encoder)))
    for _, metadata in reranked:
        scores = metadata["scores"]
        assert set(scores) == {"dense", "sparse", "colbert", "hybrid", "reranker"}
        assert scores["reranker"] == scores["colbert"]
    order = [metadata["scores"]["reranker"] for _, metadata in reranked]
    assert order == sorted(order, reverse=True)


@pytest.mark.parametrize("room", [LANGCHAIN, LLAMA_INDEX], ids=["langchain", "llama_index"])
def test_a_reranker_reads_more_candidates_than_it_returns(room: Room, encoder: M3Encoder) -> None:
    reranker = room.reranker(encoder)
    all_three = room.ask(room.ensemble(room.documents(), encoder, reranker=reranker, k=3))
    one = room.ensemble(room.documents(), encoder, reranker=reranker, k=1)
    assert [text for text, _ in room.ask(one)] == [text for text, _ in all_three[:1]]
    shallow = room.ensemble(
        room.documents(), encoder, reranker=reranker, k=1, rerank_depth=1, scores="nested"
    )
    best = room.ask(room.ensemble(room.documents(), encoder, k=1))
    assert [text for text, _ in room.ask(shallow)] == [text for text, _ in best]


@pytest.mark.parametrize("room", [LANGCHAIN, LLAMA_INDEX], ids=["langchain", "llama_index"])
def test_retrievers_and_stores_are_copied_whole(room: Room, encoder: M3Encoder) -> None:
    ensemble = room.ensemble(room.documents(), encoder, k=2)
    fused = room.names.M3EnsembleRetriever(retrievers=[ensemble, room.bm25(room.documents())])
    for made in (ensemble, fused, room.bm25(room.documents()), room.sparse([], encoder)):
        expected = room.ask(made)
        assert room.ask(copy.copy(made)) == expected
        assert room.ask(copy.deepcopy(made)) == expected
        assert room.ask(pickle.loads(pickle.dumps(made))) == expected
    store = room.store(room.documents(), encoder)
    for again in (copy.deepcopy(store), pickle.loads(pickle.dumps(store))):
        assert again.ids == store.ids
        again.hybrid.delete(["0"])
    assert store.ids == ["0", "1", "2"]


@pytest.mark.parametrize("room", [LANGCHAIN, LLAMA_INDEX], ids=["langchain", "llama_index"])
def test_a_name_of_another_library_says_what_to_write(room: Room, encoder: M3Encoder) -> None:
    made = room.ensemble([], encoder)
    others = (made, room.store([], encoder), room.reranker(encoder), room.embeddings(encoder))
    theirs = "retrieve" if room is LANGCHAIN else "invoke"
    for one, name in (
        (made, "search"),
        (made, theirs),
        (others[1], "upsert"),
        (others[2], "rerank"),
    ):
        assert not hasattr(one, name)
        assert name not in dir(one)
        with pytest.raises(UnknownNameError, match=rf"has no '{name}'\. Write \w+\("):
            getattr(one, name)
    for one in others:
        with pytest.raises(AttributeError, match="no_such_name"):
            one.no_such_name  # noqa: B018


@pytest.mark.parametrize("room", [LANGCHAIN, LLAMA_INDEX], ids=["langchain", "llama_index"])
def test_what_is_refused_when_set_leaves_things_as_they_were(
    room: Room, encoder: M3Encoder
) -> None:
    made = room.ensemble(room.documents(), encoder, k=2)
    before = room.ask(made)
    for name, value in (("k", 0), ("scores", "yes")):
        with pytest.raises(InputError):
            setattr(made, name, value)
    assert room.ask(made) == before
    made.k = 1
    assert room.ask(made) == before[:1]


def test_a_name_of_the_other_room_says_where_it_is() -> None:
    for room, name in (
        (lc, "M3ColbertRerank"),
        (li, "M3Embeddings"),
        (m3_retrievers, "M3VectorStore"),
    ):
        assert name not in dir(room)
        with pytest.raises(ImportError, match=f"has no '{name}'. Write "):
            getattr(room, name)
