"""How a retriever shows itself: in a line, as a table, as a page to try questions on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

from m3_retrievers.habits import guided
from m3_retrievers.retrieval.planned import Planned
from m3_retrievers.retrieval.precisions import difference, precision_of
from m3_retrievers.types.page import Page

if TYPE_CHECKING:
    from m3_retrievers.retrieval.retriever import HybridRetriever


@guided()
class Shown(Planned):
    """What notebooks show of a retriever; ``display`` is loaded when one asks for it."""

    def __repr__(self) -> str:
        documents = len(self.index)
        apart = difference(self.index, self.encoder)
        precision = "" if apart is None else f", precision={apart!r}"
        about = f"{self.encoder.name!r}, legs={self.legs}, documents={documents}{precision}"
        return f"HybridRetriever({about})"

    def _repr_html_(self) -> str:
        from m3_retrievers.display import markup

        precision = difference(self.index, self.encoder) or precision_of(self.encoder)
        facts = {
            "model": self.encoder.name,
            **({} if precision is None else {"precision": precision}),
            "documents": len(self.index),
            "legs": ", ".join(self.legs),
            "weights": self.weights,
            "fusion": self.fusion or "none: the hybrid score orders",
        }
        return markup.facts("HybridRetriever", facts)

    def playground(
        self,
        queries: str | Sequence[str] | None = None,
        *,
        others: Mapping[str, HybridRetriever] | None = None,
        k: int = 10,
    ) -> Page:
        """Return a page on which weights and depths reorder these queries' hits at once.

        queries: answered now, with every candidate's score in every mode; None makes some of
        the documents' own first words. others: retrievers by a name each, to compare with. k:
        the best hits by the weights, and by each mode alone, whose texts are read for matches
        and heat map, at the cost of an ``explain`` each.

        The page holds its answers, and asks nobody. A server's page takes any question, but a
        notebook's browser seldom reaches a port of its kernel: Colab, JupyterHub and VS Code on
        another machine each need their own way there. A frame with the document in it looks the
        same in all of them, works offline, and still does in a notebook that was saved and sent
        on, once its reader trusts it. For questions as they come, ``m3-retrievers serve`` has the
        page at its address.

        Raises InputError for what is no query or no HybridRetriever.
        """
        from m3_retrievers.display.playground.notebook import playground

        own = cast("HybridRetriever", self)
        return playground(queries, {"this retriever": own, **(others or {})}, k=k)
