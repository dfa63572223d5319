"""SelfQueryRetriever over this package's store: what an LLM asks for becomes a filter."""

import json
from typing import Any

import pytest
from langchain_classic.chains.query_constructor.base import AttributeInfo
from langchain_classic.retrievers import SelfQueryRetriever
from langchain_core.documents import Document
from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import FakeListChatModel
from langchain_core.structured_query import (
    Comparator,
    Comparison,
    Operation,
    Operator,
    StructuredQuery,
)

from m3_retrievers import M3Encoder
from m3_retrievers.errors import FilterError
from m3_retrievers.index.filters import compile_filter
from m3_retrievers.langchain import M3Translator, M3VectorStore

FIELDS = [
    AttributeInfo(name="n", description="The number of the text", type="integer"),
    AttributeInfo(name="even", description="Whether it is even", type="boolean"),
    AttributeInfo(name="day", description="When it was written", type="date"),
    AttributeInfo(name="tags", description="What it is about", type="list[string]"),
]
METADATA = [
    {"n": 0, "even": True, "day": "2023-05-01", "tags": ["water"]},
    {"n": 1, "even": False, "day": "2024-05-01", "tags": ["book", "page"]},
    {"n": 2, "even": True, "day": "2025-05-01", "tags": ["water", "road"]},
]


def retriever(encoder: M3Encoder, asked: str, **options: Any) -> SelfQueryRetriever:
    documents = [Document("The river.", metadata=metadata) for metadata in METADATA]
    answer = json.dumps({"query": "river", "filter": asked, **options})
    return SelfQueryRetriever.from_llm(
        FakeListChatModel(responses=[f"```json\n{answer}\n```"]),
        M3VectorStore.from_documents(documents, encoder),
        "Short texts",
        FIELDS,
        structured_query_translator=M3Translator(),
        enable_limit=True,
    )


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("NO_FILTER", [0, 1, 2]),
        ('eq("n", 1)', [1]),
        ('ne("n", 1)', [0, 2]),
        ('and(gt("n", 0), lt("n", 2))', [1]),
        ('or(lte("n", 0), gte("n", 2))', [0, 2]),
        ('not(eq("even", true))', [1]),
        ('in("n", [0, 2])', [0, 2]),
        ('nin("n", [0, 2])', [1]),
        ('contain("tags", "water")', [0, 2]),
        ('gte("day", "2024-05-01")', [1, 2]),
        ('and(not(or(eq("n", 0), eq("n", 1))), contain("tags", "road"))', [2]),
    ],
)
def test_what_the_model_asks_for_is_what_comes_back(
    encoder: M3Encoder, asked: str, expected: list[int]
) -> None:
    found = retriever(encoder, asked).invoke("which river?")
    assert [document.metadata["n"] for document in found] == expected


async def test_async_and_a_limit(encoder: M3Encoder) -> None:
    found = await retriever(encoder, 'eq("even", true)', limit=1).ainvoke("one about a river")
    assert [document.metadata["n"] for document in found] == [0]


def test_the_model_is_told_what_the_filter_knows(encoder: M3Encoder) -> None:
    with pytest.raises(OutputParserException, match="disallowed comparator like"):
        retriever(encoder, 'like("day", "2024%")').invoke("which river?")


def test_like_is_refused_by_name() -> None:
    like = Comparison(comparator=Comparator.LIKE, attribute="day", value="2024%")
    with pytest.raises(FilterError, match=r"expects the comparators .*got 'like'"):
        M3Translator().visit_structured_query(StructuredQuery(query="x", filter=like))


def test_not_over_several_means_none_of_them() -> None:
    parts = [Comparison(comparator=Comparator.EQ, attribute="n", value=n) for n in (0, 1)]
    [filter] = (
        M3Translator()
        .visit_structured_query(
            StructuredQuery(query="x", filter=Operation(operator=Operator.NOT, arguments=parts))
        )[1]
        .values()
    )
    assert [compile_filter(filter)(metadata) for metadata in METADATA] == [False, False, True]
