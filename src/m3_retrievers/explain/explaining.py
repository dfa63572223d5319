"""From a query and a hit to an Explanation: read both texts again, and take the scores apart."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from m3_retrievers.checks import check_texts
from m3_retrievers.encoder.base import Encoder
from m3_retrievers.errors import InputError
from m3_retrievers.explain.explanation import Alignment, Explanation, ReadText, TermShare
from m3_retrievers.explain.words import cluster_end, term_shares
from m3_retrievers.index.base import Index
from m3_retrievers.lexical.bm25 import BM25
from m3_retrievers.retrieval.retriever import HybridRetriever
from m3_retrievers.types.hits import Hit
from m3_retrievers.types.packed import MultiVectors, TokenWeight
from m3_retrievers.types.plan import Mode
from m3_retrievers.types.representations import Output, Representations

# Far above what float16 vectors in a store cost (5e-4), far below another text's score.
_TOLERANCE = 2e-3


def explain(query: str, hit: Hit | str, *, retriever: HybridRetriever) -> Explanation:
    """Return why ``hit`` matched ``query``: tokens, terms, alignment and shares.

    query: the text that was searched for. hit: of this retriever's search, or the id of any
    document in its index, found or not; its text is encoded again, so the index need not keep
    what the explanation shows. A mode of which the hit has no score is explained where the
    model has the head.

    Raises InputError for a query that is no string and an id that is unknown.
    """
    check_texts([query])
    if not isinstance(retriever, HybridRetriever) or not isinstance(hit, Hit | str):
        raise InputError(
            f"explain expects a Hit and a HybridRetriever, got {type(hit).__name__} and "
            f"{type(retriever).__name__}. In a framework, pass the document's id and "
            "retriever=retriever.hybrid."
        )
    if isinstance(hit, str):
        # scored alone it has no place among others
        hit = replace(retriever.score(query, [hit])[0], ranks={})
    encoder = retriever.encoder
    has = encoder.outputs
    outputs = tuple(mode for mode in has if mode != "dense") or has
    asked = encoder.encode_query(query, outputs=outputs)
    given = encoder.encode_documents([hit.text], outputs=outputs)
    read_query = _read(encoder, query, query=True)
    document = _read(encoder, hit.text, query=False)
    terms: dict[Mode, tuple[TermShare, ...]] = {}
    if "sparse" in has:
        sides = [
            _read(encoder, text, query=is_query, output="sparse")
            for text, is_query in ((query, True), (hit.text, False))
        ]
        terms["sparse"] = _learned(encoder, asked, given, *sides)
    bm25 = retriever.index.weighting if "bm25" in hit.scores else None
    if isinstance(bm25, BM25):
        terms["bm25"] = term_shares(bm25, query, hit.text)
    alignment = None
    if asked.colbert is not None and given.colbert is not None:
        vectors = _stored(retriever.index, hit, given.colbert)
        alignment = Alignment(asked.colbert[0] @ vectors[0].astype(np.float32).T)
    found: dict[str, float] = {mode: math.fsum(t.score for t in of) for mode, of in terms.items()}
    if alignment is not None:
        found["colbert"] = alignment.score
    notes = (
        *_notes(encoder, read_query, document, hit, tuple(terms)),
        *_disagreements(found, hit),
    )
    return Explanation(read_query, document, hit, terms, alignment, notes)


def _stored(index: Index, hit: Hit, made: MultiVectors) -> MultiVectors:
    """Return the hit's token vectors as the index keeps them, whose scores are the hit's.

    made: of its text, for an index that keeps none, pools them, or has another text by now.
    """
    with index.snapshot():
        kept = index.get([hit.id])
        if "colbert" not in index.modes or not kept or kept[0].text != hit.text:
            return made
        kept_vectors = index.vectors([hit.id], outputs=("colbert",)).require("colbert")
        # pooled vectors stand for several tokens each
        return kept_vectors if len(kept_vectors[0]) == len(made[0]) else made


def _learned(
    encoder: Encoder,
    asked: Representations,
    given: Representations,
    query: ReadText,
    document: ReadText,
) -> tuple[TermShare, ...]:
    """Return the terms that both sides weigh, the largest product first."""
    (left,), (right,) = asked.to_dicts(), given.to_dicts()
    shared = sorted(left.keys() & right.keys())
    shares = []
    for id, term in zip(shared, encoder.terms(shared), strict=True):
        in_query = [token for token in query.tokens if token.id == id]
        in_document = [token for token in document.tokens if token.id == id]
        shares.append(
            TermShare(
                term=term,
                score=left[id] * right[id],
                query_weight=left[id],
                document_weight=right[id],
                query_spans=_spans(in_query),
                document_spans=_spans(in_document),
            )
        )
    return tuple(sorted(shares, key=lambda share: -share.score))


def _spans(tokens: list[TokenWeight]) -> tuple[tuple[int, int], ...]:
    return tuple((token.start, token.end) for token in tokens if token.end > token.start)


def _read(encoder: Encoder, text: str, *, query: bool, output: Output | None = None) -> ReadText:
    view = encoder.view(text, query=query, output=output)
    starts = [*(token.start for token in view.tokens[1:]), len(text)]
    seen = zip(view.tokens, starts, strict=False)
    placed = tuple(_placed(one, text, following) for one, following in seen)
    return ReadText(text, placed, view.unseen, view.vector_tokens, view.vector_labels)


def _placed(token: TokenWeight, text: str, following: int) -> TokenWeight:
    """Return the token with the span of what a reader sees of it.

    XLM-R's tokenizer gives the bare word boundary ``▁`` the character that follows, which the
    next token has too, and an accent typed as a combining mark to no token at all. A vowel
    sign that the next token, from ``following`` on, begins with stays that token's.
    """
    if token.surface == "▁" or token.end <= token.start:
        return replace(token, end=token.start)
    end = cluster_end(text, token.end)
    return replace(token, end=min(end, following) if following >= token.end else end)


def _notes(
    encoder: Encoder, query: ReadText, document: ReadText, hit: Hit, terms: tuple[Mode, ...]
) -> tuple[str, ...]:
    notes = []
    for name, read in (("query", query), ("document", document)):
        if read.unseen:
            total = len(read.tokens) + read.unseen
            notes.append(
                f"The model read the first {len(read.tokens):,} of the {name}'s {total:,} tokens; "
                f"{read.unseen:,} were cut off and count in none of its scores."
            )
    for mode, missing in (("sparse", "term weights"), ("colbert", "alignment")):
        if mode not in encoder.outputs:
            notes.append(
                f"{encoder.name} has no {mode} head, so there are no {missing} of its own."
            )
    if "bm25" in hit.scores and "bm25" not in terms:
        notes.append("The index keeps its BM25 to itself, so its score is not split into terms.")
    if "fusion" in hit.scores:
        notes.append(
            "The hit's score comes from fusing ranked lists, not from a weighted sum: "
            "its modes have ranks, and no shares."
        )
    elif not hit.contributions:
        notes.append("The hit carries no shares: it is no result of a hybrid search.")
    return tuple(notes)


def _disagreements(found: Mapping[str, float], hit: Hit) -> list[str]:
    """Return a note for each mode in which the hit's score is not what both texts give now."""
    return [
        f"The hit's {mode} score is {hit.scores[mode]:.4f}, and its text now gives {value:.4f}: "
        "the query, the model or the index is not the one of the search"
        f"{', or the index pools token vectors' if mode == 'colbert' else ''}."
        for mode, value in found.items()
        if mode in hit.scores
        and not math.isclose(value, hit.scores[mode], rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
    ]
