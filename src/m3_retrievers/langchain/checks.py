"""What a caller or a chain hands in, checked before anything is done with it."""

from __future__ import annotations

from collections.abc import Iterable

from langchain_core.documents import Document

from m3_retrievers.encoder.encoder import M3Encoder
from m3_retrievers.errors import InputError


def check_documents(documents: Iterable[Document]) -> list[Document]:
    """Return the documents as a list; raises InputError for what is no list of Documents."""
    if isinstance(documents, Document | str):
        raise InputError(
            f"documents expects a list of Documents, got one {type(documents).__name__}: "
            f"{documents!r:.60}. Wrap it."
        )
    documents = list(documents)
    for position, document in enumerate(documents):
        if not isinstance(document, Document):
            raise InputError(
                f"documents expects LangChain Documents, got {type(document).__name__} "
                f"({document!r:.60}) at position {position}. Wrap a text as "
                "Document(page_content=text), or use from_texts or add_texts."
            )
    return documents


def check_question(query: str) -> None:
    """Raise InputError unless the query is a string; chains often pass a mapping on."""
    if not isinstance(query, str):
        raise InputError(
            f"A retriever expects the question as a string, got {type(query).__name__} "
            f"({query!r:.60}). In a chain, pick it first: itemgetter('question') | retriever."
        )


def check_encoder(encoder: M3Encoder) -> None:
    """Raise InputError for what is no M3Encoder, such as a model's name."""
    if not isinstance(encoder, M3Encoder):
        raise InputError(
            f"encoder expects an M3Encoder, got {encoder!r:.80}. Make one with "
            "M3Encoder.from_pretrained('m3-mini')."
        )
