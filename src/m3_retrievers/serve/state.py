"""What the requests of one server share: encoder, index, queue, counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from m3_retrievers import __version__
from m3_retrievers.encoder.base import Encoder
from m3_retrievers.encoder.encoder import M3Encoder
from m3_retrievers.encoder.settings import choose_budget, choose_outputs
from m3_retrievers.errors import EncoderAnswerError, InputError, M3Warning, collected
from m3_retrievers.retrieval.retriever import HybridRetriever
from m3_retrievers.retrieval.threads import in_thread
from m3_retrievers.serve.batcher import Batcher, Kind
from m3_retrievers.serve.limits import Limits
from m3_retrievers.serve.metrics import Metrics
from m3_retrievers.types.representations import Output, Representations

# Of an encoder that does not say how it reads texts; only passes are cut by it.
_CHARACTERS_A_TOKEN = 4
_BUDGET = 8_192
Warned = list[tuple[type[M3Warning], str]]


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """An index as a server offers it.

    name: what a request calls it. code: Python that makes ``retriever`` elsewhere, for a page
    that is copied from; "" where nobody knows.
    """

    name: str
    retriever: HybridRetriever
    code: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """A request's texts encoded; tokens (n,), None where the encoder does not tell."""

    found: Representations
    tokens: list[int] | None
    warned: Warned


class State:
    """One server's encoder, index if there is one, queue and counts.

    indexes: by name, in the order given; what asks for none gets the first. Those after it have
    a queue each, for their models are others.
    """

    def __init__(
        self,
        encoder: Encoder,
        indexes: Sequence[Served],
        limits: Limits,
        metrics: Metrics | None = None,
    ) -> None:
        self.encoder, self.limits = encoder, limits
        self.index = indexes[0] if indexes else None
        self.metrics = metrics or Metrics()
        self._others = {
            other.name: State(other.retriever.encoder, [other], limits, self.metrics)
            for other in indexes[1:]
        }
        self.about: dict[str, Any] = {}
        self._batcher: Batcher | None = None

    @property
    def batcher(self) -> Batcher:
        """The queue of the running server."""
        assert self._batcher is not None, "the server was not started"
        return self._batcher

    @property
    def retriever(self) -> HybridRetriever | None:
        """The retriever of the first index, None where a model is served alone."""
        return None if self.index is None else self.index.retriever

    @property
    def indexes(self) -> list[Served]:
        """All indexes there are."""
        first = [] if self.index is None else [self.index]
        return [*first, *(one for state in self._others.values() for one in state.indexes)]

    def of(self, name: str | None) -> State:
        """Return the state of an index by its name, None for the first; InputError for no name."""
        if name is None or (self.index is not None and name == self.index.name):
            return self
        if name not in self._others:
            known = [one.name for one in self.indexes]
            raise InputError(f"index expects one of {known}, got {name!r:.80}.")
        return self._others[name]

    @property
    def info(self) -> dict[str, Any]:
        """What text-embeddings-inference states about itself, of this server."""
        model = self.about["model"]
        found: dict[str, Any] = {
            "model_id": model["name"],
            "model_sha": model["fingerprint"],
            "max_client_batch_size": self.limits.max_texts,
            "version": __version__,
        }
        if isinstance(self.encoder, M3Encoder):
            checkpoint, settings = self.encoder.checkpoint, self.encoder.settings
            found["model_type"] = {"embedding": {"pooling": checkpoint.pooling}}
            longest = min(settings.document_max_length, checkpoint.max_length)
            found["max_input_length"] = longest
        return found

    async def start(self) -> None:
        """Load the model, and begin to work."""
        self._batcher = Batcher(
            self.encoder,
            budget=self.limits.batch_tokens or _budget_of(self.encoder),
            queue=self.limits.queue,
            metrics=self.metrics,
        )
        self._batcher.start()
        self.about = await self._batcher.call(self._described)
        for other in self._others.values():
            await other.start()

    async def stop(self) -> None:
        """End the work."""
        for state in (*self._others.values(), self):
            await state.batcher.stop()

    async def encode(
        self, texts: Sequence[str], *, query: bool, outputs: Sequence[Output] | None = None
    ) -> Encoded:
        """Return texts encoded in passes that other requests may share.

        Raises what encoding them alone would, MissingHeadError for an output there is not.
        """
        wanted = choose_outputs(outputs, has=self.encoder.outputs, model=self.encoder.name)
        tokens, warned = await in_thread(self._measured, texts, query)
        lengths = tokens or [len(text) // _CHARACTERS_A_TOKEN + 2 for text in texts]
        if not texts:
            encode = self.encoder.encode_queries if query else self.encoder.encode_documents
            call = partial(encode, [], outputs=wanted)
            return Encoded(await self.batcher.call(call), [], [])
        found = await self.batcher.encode(texts, Kind(query, wanted), lengths)
        return Encoded(found, tokens, warned)

    def hidden_states(self, texts: Sequence[str | list[int]]) -> list[list[list[float]]]:
        """Return each text's last hidden states (t, h); InputError for an encoder without."""
        from m3_retrievers.encoder.states import hidden_states

        if not isinstance(self.encoder, M3Encoder):
            raise InputError(
                f"/embed_all expects a server of M3Encoder, got {type(self.encoder).__name__}, "
                "which shows no hidden states. Use /encode, which gives all its outputs."
            )
        return [states.tolist() for states in hidden_states(self.encoder, texts)]

    # Inside

    def _measured(self, texts: Sequence[str], query: bool) -> tuple[list[int] | None, Warned]:
        measure = getattr(self.encoder, "measure", None)
        if measure is None:
            return None, []
        with collected() as warned:
            return measure(texts, query=query).tolist(), warned

    def _described(self) -> dict[str, Any]:
        encoder, retriever = self.encoder, self.retriever
        one = encoder.encode_documents(["a"])
        if not len(one):
            raise EncoderAnswerError(f"{encoder.name} is expected to encode a text, and does not.")
        limits = {"max_texts": self.limits.max_texts, "max_characters": self.limits.max_characters}
        return {
            "status": "ok",
            "version": __version__,
            "model": {
                "name": encoder.name,
                "outputs": list(encoder.outputs),
                "dimension": encoder.dimension if "dense" in encoder.outputs else 0,
                "vocabulary_size": encoder.vocabulary_size if "sparse" in encoder.outputs else 0,
                "weights": asdict(encoder.default_weights),
                "fingerprint": encoder.fingerprint,
            },
            "limits": {**limits, "max_body": self.limits.max_body, "queue": self.limits.queue},
            "index": None if retriever is None else {"legs": list(retriever.legs)},
        }


def _budget_of(encoder: Encoder) -> int:
    """Return how many tokens a pass has where the encoder runs, if it says so."""
    device = getattr(encoder, "device", None)
    settings = getattr(encoder, "settings", None)
    if device is None:
        return _BUDGET
    return choose_budget(getattr(settings, "batch_tokens", None), device)
