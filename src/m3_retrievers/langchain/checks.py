"""What a caller or a chain hands in, checked before anything is done with it."""

from __future__ import annotations

from collections.abc import Iterable

from langchain_core.documents import Document

from m3_retrievers.frameworks import inputs


def check_documents(documents: Iterable[Document]) -> list[Document]:
    """Return the documents as a list; raises InputError for what is no list of Documents."""
    return inputs.check_all(
        documents,
        Document,
        name="documents",
        plural="LangChain Documents",
        remedy="Wrap a text as Document(page_content=text), or use from_texts or add_texts.",
    )


def check_answers(answers: Iterable[Document], retriever: str) -> list[Document]:
    """Return what a retriever found as a list; raises InputError for what is no Documents."""
    return inputs.check_all(
        answers,
        Document,
        name=retriever,
        plural="LangChain Documents as its answers",
        remedy="Make Documents of what it returns: retriever | RunnableLambda(…).",
    )


def check_question(query: str) -> None:
    """Raise InputError unless the query is a string; chains often pass a mapping on."""
    inputs.check_question(
        query, remedy="In a chain, pick it first: itemgetter('question') | retriever."
    )
