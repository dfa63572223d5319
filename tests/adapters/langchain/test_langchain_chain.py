"""A RAG chain in LangChain's expression language, end to end, whole and streamed."""

from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnablePassthrough

from m3_retrievers import M3Encoder
from m3_retrievers.langchain import M3EnsembleRetriever

QUESTION = "Where is the river?"


class Echo(BaseChatModel):
    """Answers with what it was asked, so that a test sees what reached the model."""

    @property
    def _llm_type(self) -> str:
        return "echo"

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        answer = AIMessage(content=str(messages[-1].content))
        return ChatResult(generations=[ChatGeneration(message=answer)])

    def _stream(
        self, messages: list[BaseMessage], *_: Any, **__: Any
    ) -> Iterator[ChatGenerationChunk]:
        for word in str(messages[-1].content).split(" "):
            yield ChatGenerationChunk(message=AIMessageChunk(content=word + " "))


def joined(documents: list[Document]) -> str:
    return " | ".join(document.page_content for document in documents)


@pytest.fixture
def retriever(encoder: M3Encoder, documents: tuple[Document, ...]) -> M3EnsembleRetriever:
    return M3EnsembleRetriever.from_documents(documents, encoder=encoder, k=2)


@pytest.fixture
def chain(retriever: M3EnsembleRetriever) -> Runnable[str, str]:
    prompt = ChatPromptTemplate.from_template("{question} -> {context}")
    start = {"context": retriever | joined, "question": RunnablePassthrough()}
    return start | prompt | Echo() | StrOutputParser()


@pytest.fixture
def answer(retriever: M3EnsembleRetriever) -> str:
    return f"{QUESTION} -> {joined(retriever.invoke(QUESTION))}"


async def test_the_chain_answers_from_the_documents(chain: Runnable[str, str], answer: str) -> None:
    assert answer.count(" | ") == 1
    assert chain.invoke(QUESTION) == answer
    assert await chain.ainvoke(QUESTION) == answer
    assert chain.batch([QUESTION, QUESTION]) == [answer, answer]


async def test_the_chain_streams(chain: Runnable[str, str], answer: str) -> None:
    pieces = list(chain.stream(QUESTION))
    assert len(pieces) > 5
    assert "".join(pieces).strip() == answer
    assert "".join([piece async for piece in chain.astream(QUESTION)]).strip() == answer


async def test_events_show_the_legs(chain: Runnable[str, str]) -> None:
    names = [
        event["name"]
        async for event in chain.astream_events(QUESTION, version="v2")
        if event["event"] == "on_retriever_end"
    ]
    assert sorted(names) == ["M3EnsembleRetriever", "dense", "sparse"]


def test_documents_go_into_the_prompt_as_they_are(retriever: M3EnsembleRetriever) -> None:
    prompt = ChatPromptTemplate.from_template("{context}")
    chain = {"context": retriever} | prompt | Echo() | StrOutputParser()
    assert "'hybrid'" in chain.invoke(QUESTION)
