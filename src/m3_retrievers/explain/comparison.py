"""Why one hit outranks another: the difference of their shares, mode by mode, term by term."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from m3_retrievers.errors import InputError
from m3_retrievers.explain.explanation import Explanation
from m3_retrievers.explain.words import spelled
from m3_retrievers.types.plan import name_of


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """What hit a has over hit b; a difference below 0 speaks for b.

    difference: of the scores. modes: of each mode's weighted share, largest size first; they
    add up to ``difference``. terms: of each shared term's weighted share, largest size first;
    they add up to the lexical mode's difference.
    """

    a: Explanation
    b: Explanation
    difference: float
    modes: Mapping[str, float]
    terms: Mapping[str, float]

    def __repr__(self) -> str:
        return f"Comparison({self.summary})"

    @property
    def summary(self) -> str:
        """One sentence, for people."""
        first, second = f"{self.a.hit.id!r:.60}", f"{self.b.hit.id!r:.60}"
        if self.difference < 0:
            verb = "ranks below"
        else:
            verb = "outranks" if self.difference > 0 else "ties with"
        parts = ", ".join(self._part(mode) for mode in self.modes)
        return f"{first} {verb} {second} by {abs(self.difference):.3f}: {parts}."

    def _part(self, mode: str) -> str:
        part = f"{name_of(mode)} {self.modes[mode]:+.3f}"
        lexical = mode in (self.a.lexical_mode, self.b.lexical_mode)
        largest = list(self.terms.items())[:3] if lexical else []
        named = ", ".join(f"{spelled(term)} {value:+.3f}" for term, value in largest)
        return f"{part} ({named})" if named else part

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "a": self.a.hit.id,
            "b": self.b.hit.id,
            "difference": self.difference,
            "modes": dict(self.modes),
            "terms": dict(self.terms),
            "summary": self.summary,
        }

    def _repr_html_(self) -> str:
        from m3_retrievers.display.explanations import comparison

        return comparison(self)


def compare(a: Explanation, b: Explanation) -> Comparison:
    """Return why hit ``a`` outranks hit ``b``: explanations of two hits of one query.

    Raises InputError for explanations of different queries, or of hits without shares (their
    order comes from fusing ranks).
    """
    if a.query.text != b.query.text:
        raise InputError(
            "compare expects explanations of one query, got "
            f"{a.query.text!r:.60} and {b.query.text!r:.60}."
        )
    for one in (a, b):
        if not one.shares:
            raise InputError(
                f"compare expects hits with shares, got {one.hit.id!r:.60} with scores "
                f"{sorted(one.hit.scores)}. Search with fusion=None, so that the hybrid score "
                "orders the hits."
            )
    names = list(dict.fromkeys([*a.shares, *b.shares]))
    modes = {name: a.shares.get(name, 0.0) - b.shares.get(name, 0.0) for name in names}
    left, right = _weighted_terms(a), _weighted_terms(b)
    both = dict.fromkeys([*left, *right])
    terms = {term: left.get(term, 0.0) - right.get(term, 0.0) for term in both}
    return Comparison(a, b, a.hit.score - b.hit.score, _by_size(modes), _by_size(terms))


def _weighted_terms(explanation: Explanation) -> dict[str, float]:
    """Return each term's weighted share; they add up to the lexical mode's share."""
    mode = explanation.lexical_mode
    if mode not in explanation.shares or not explanation.hit.scores.get(mode):
        return {}
    factor = explanation.shares[mode] / explanation.hit.scores[mode]
    return {share.term: share.score * factor for share in explanation.lexical_terms}


def _by_size(values: Mapping[str, float]) -> dict[str, float]:
    return dict(sorted(values.items(), key=lambda item: -abs(item[1])))
