"""Texts whose accents are characters of their own."""

import unicodedata

from m3_retrievers import HybridRetriever, M3Encoder
from m3_retrievers.explain import explain


def test_a_span_takes_its_accents_along(tiny_m3):
    """XLM-R's tokenizer gives an accent typed as a combining mark to no token."""
    encoder = M3Encoder.from_pretrained(tiny_m3, device="cpu")
    text = unicodedata.normalize("NFD", "the café")
    retriever = HybridRetriever(encoder)
    retriever.add([text])
    [hit] = retriever.search(text, k=1)
    why = explain(text, hit, retriever=retriever)
    covered = {at for token in why.document.tokens for at in range(token.start, token.end)}
    accent = text.index("\u0301")
    assert accent in covered
    assert {at for at, letter in enumerate(text) if not letter.isspace()} <= covered
