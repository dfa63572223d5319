"""CombinedEncoder: each output from another model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from m3_retrievers.encoder.base import BaseEncoder, Encoder
from m3_retrievers.encoder.choose import as_encoder
from m3_retrievers.encoder.embeddings import EmbeddingsEncoder
from m3_retrievers.encoder.settings import weights_for
from m3_retrievers.errors import InputError, MissingHeadError
from m3_retrievers.habits import guided
from m3_retrievers.types.plan import HybridWeights, check_weights
from m3_retrievers.types.representations import ALL_OUTPUTS, Output, Representations
from m3_retrievers.types.tokens import TokenView


@guided()
class CombinedEncoder(BaseEncoder):
    """Dense vectors, term weights and ColBERT vectors, each from the encoder that makes them best.

    dense, sparse, colbert: encoders or models' names; dense also LangChain's ``Embeddings``,
    LlamaIndex's ``BaseEmbedding`` or a sentence-transformers model. An output that is left out
    is not made. An encoder that stands in several places runs once a text.
    weights: of the hybrid score; None is 1 / 0.3 / 1, the paper's.

    Raises InputError without any part, MissingHeadError for a part that lacks its output.
    """

    def __init__(
        self,
        *,
        dense: Encoder | str | Any | None = None,
        sparse: Encoder | str | None = None,
        colbert: Encoder | str | None = None,
        weights: HybridWeights | None = None,
    ) -> None:
        super().__init__(keep=None)  # each part keeps its own
        given = {"dense": dense, "sparse": sparse, "colbert": colbert}
        self.parts: dict[Output, Encoder] = {
            output: _part(given[output], output)
            for output in ALL_OUTPUTS
            if given[output] is not None
        }
        if not self.parts:
            raise InputError(
                "CombinedEncoder expects some of dense=, sparse= and colbert=, got none. Give the "
                "encoder of each output."
            )
        self._weights = check_weights(weights, default=weights_for(self.outputs))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the parts."""
        return _combined, (dict(self.parts), self._weights)

    @property
    def name(self) -> str:
        """The names of the parts, by output."""
        return " + ".join(f"{part.name} ({output})" for output, part in self.parts.items())

    @property
    def outputs(self) -> tuple[Output, ...]:
        """The outputs that have a part."""
        return tuple(self.parts)

    @property
    def default_weights(self) -> HybridWeights:
        """The weights it was made with."""
        return self._weights

    @property
    def precision(self) -> str | None:
        """The parts' precisions, by output, of those that state one; None where none does."""
        stated = {output: getattr(part, "precision", None) for output, part in self.parts.items()}
        named = [f"{found} ({output})" for output, found in stated.items() if found]
        return " + ".join(named) or None

    @property
    def dimension(self) -> int:
        """Width h of the dense output."""
        return self._of("dense").dimension

    @property
    def vocabulary_size(self) -> int:
        """Width v of the sparse output."""
        return self._of("sparse").vocabulary_size

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the parts' fingerprints."""
        parts = [f"{output}:{part.fingerprint}" for output, part in self.parts.items()]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def view(self, text: str, *, query: bool, output: Output | None = None) -> TokenView:
        """Return a text's tokens as the model of an output reads them.

        output: None is the most detailed there is: ColBERT's, else the sparse one.
        """
        present: list[Output] = [one for one in reversed(ALL_OUTPUTS) if one in self.parts]
        chosen = present[0] if output is None else output
        return self._of(chosen).view(text, query=query, output=chosen)

    def terms(self, ids: Sequence[int]) -> list[str]:
        """Return the spelling of sparse columns."""
        return self._of("sparse").terms(ids)

    def _of(self, output: Output) -> Encoder:
        if output not in self.parts:
            raise MissingHeadError(
                f"The output {output!r} has no part in {self.name!r}. Give one: "
                f"CombinedEncoder({output}=…)."
            )
        return self.parts[output]

    def _compute(
        self,
        texts: Sequence[str],
        *,
        query: bool,
        outputs: tuple[Output, ...],
        show_progress: bool,
    ) -> Representations:
        if "tokens" in outputs:
            raise MissingHeadError("The output 'tokens' belongs to one model. Use view(text, …).")
        made: dict[str, Any] = {}
        for part in dict.fromkeys(map(id, self.parts.values())):
            wanted = [output for output in outputs if id(self.parts[output]) == part]
            if wanted:
                encoder = self.parts[wanted[0]]
                encode = encoder.encode_queries if query else encoder.encode_documents
                found = encode(texts, outputs=wanted, show_progress=show_progress)
                made |= {output: found.require(output) for output in wanted}
        return Representations(**made)


def _part(given: Any, output: Output) -> Encoder:
    if output == "dense" and not isinstance(given, str) and not hasattr(given, "encode_documents"):
        given = EmbeddingsEncoder(given)
    part = as_encoder(given)
    if output not in part.outputs:
        raise MissingHeadError(
            f"{output}= expects an encoder that makes {output!r}, got {part.name!r}, which makes "
            f"{part.outputs}. Give another one."
        )
    return part


def _combined(parts: dict[str, Any], weights: HybridWeights) -> CombinedEncoder:
    return CombinedEncoder(**parts, weights=weights)
