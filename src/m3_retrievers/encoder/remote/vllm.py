"""VllmEncoder: M3's outputs from vLLM, which serves one of them at an address."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from m3_retrievers.encoder.collect import Collector
from m3_retrievers.encoder.forward import Pass
from m3_retrievers.encoder.pieces import Piece, Truncation
from m3_retrievers.encoder.reading import Reading
from m3_retrievers.encoder.recent import Keep
from m3_retrievers.encoder.remote.answers import numbers, rows_of, unit_rows
from m3_retrievers.encoder.remote.connection import Connection, connect, shown
from m3_retrievers.encoder.remote.exchange import Answer
from m3_retrievers.encoder.remote.tokenized import TokenizedEncoder, ask_in_batches
from m3_retrievers.encoder.settings import Settings
from m3_retrievers.errors import InputError
from m3_retrievers.types.plan import HybridWeights
from m3_retrievers.types.representations import ALL_OUTPUTS, Output

if TYPE_CHECKING:
    from m3_retrievers.encoder.remote.transport import Transport

_TASKS = {"sparse": "token_classify", "colbert": "token_embed"}


class VllmEncoder(TokenizedEncoder):
    """BGE-M3 behind vLLM: up to three addresses, one an output.

    url: of a server of dense vectors, or ``{"dense": …, "sparse": …, "colbert": …}`` with those
    there are. They are started with ``vllm serve BAAI/bge-m3 --runner pooling --hf-overrides
    '{"architectures": ["BgeM3EmbeddingModel"]}' --pooler-config.task`` and ``embed``,
    ``token_classify`` or ``token_embed``.
    tokenizer: folder or hub id of the model's tokenizer: texts become token ids here.
    model: its name on the server; None asks for it.
    name, weights, keep, truncation and the lengths: as for ``M3Encoder``. connection: key,
    time-out, retries, requests at once.

    Dense and sparse rows equal M3Encoder's. ColBERT's do but for one: vLLM leaves out the vector
    of EOS, which FlagEmbedding and M3Encoder keep, so that its mean of the largest similarities
    is over one query token less, and a query token cannot find a document's EOS. With m3-mini
    that moves a score by 0.0024 on average and 0.011 at most, of 0.20 (56 pairs of sentences).

    The fingerprint covers the tokenizer's file, the model's name as the server states it, and
    ``truncate_dim``. It cannot know the weights behind that name: a server that is started again
    with others looks the same. fingerprint: states it instead, for an index that M3Encoder built.

    Raises InputError for options, EncoderUnavailableError for a server that does not answer,
    EncoderAnswerError for an answer that cannot be right.
    """

    def __init__(
        self,
        url: str | Mapping[Output, str],
        *,
        tokenizer: str | Path,
        model: str | None = None,
        name: str | None = None,
        weights: HybridWeights | None = None,
        truncation: Truncation = "warn",
        query_max_length: int = 512,
        document_max_length: int = 8192,
        query_instruction: str = "",
        truncate_dim: int | None = None,
        fingerprint: str | None = None,
        connection: Connection | None = None,
        keep: Keep | None = Keep(),  # noqa: B008  (frozen)
    ) -> None:
        urls = _by_output(url)
        self._servers = {
            output: connect(one, connection, purpose="VllmEncoder") for output, one in urls.items()
        }
        first = shown(next(iter(urls.values())))
        super().__init__(
            name or f"vLLM at {first}",
            tuple(urls),
            tokenizer=tokenizer,
            settings=Settings(
                truncation=truncation,
                query_max_length=query_max_length,
                document_max_length=document_max_length,
                query_instruction=query_instruction,
                truncate_dim=truncate_dim,
            ),
            weights=weights,
            stated_fingerprint=fingerprint,
            keep=keep,
        )
        self._model = model
        self._made: dict[str, Any] = {
            "tokenizer": tokenizer, "model": model, "name": name, "weights": weights,
            "truncation": truncation, "query_max_length": query_max_length,
            "document_max_length": document_max_length, "query_instruction": query_instruction,
            "truncate_dim": truncate_dim, "fingerprint": fingerprint, "connection": connection,
            "keep": keep,
        }  # fmt: skip
        self._urls = urls

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle addresses and options; a key is among them."""
        return partial(type(self), **self._made), (self._urls,)

    @property
    def _transports(self) -> Sequence[Transport]:
        return tuple(self._servers.values())

    @property
    def _end_vector(self) -> bool:
        return False

    def _identity(self) -> list[Any]:
        return [[output, self._stated_models[output]] for output in self.outputs]

    def _longest(self) -> int:
        lengths = [one.get("max_model_len") for one in self._stated_models.values()]
        return min([n for n in lengths if type(n) is int and n > 2], default=super()._longest())

    @cached_property
    def _stated_models(self) -> dict[Output, dict[str, Any]]:
        """What each server says of its model: id, root, max_model_len."""
        return {output: _stated(server, self._model) for output, server in self._servers.items()}

    def _fill(
        self,
        collector: Collector,
        reading: Reading,
        outputs: tuple[Output, ...],
        done: Callable[[int], object],
    ) -> None:
        for output in outputs:
            ask_in_batches(
                self._servers[output],
                reading,
                request=partial(self._request, output),
                take=partial(self._take, collector, output),
                done=done if output == outputs[-1] else None,
            )

    def _request(self, output: Output, pieces: list[Piece]) -> tuple[str, Any]:
        body: dict[str, Any] = {
            "model": self._stated_models[output]["id"],
            "input": [piece.ids.tolist() for piece in pieces],
            "encoding_format": "float",
        }
        if output == "dense":
            return "/v1/embeddings", body
        return "/pooling", body | {"task": _TASKS[output]}

    def _take(
        self,
        collector: Collector,
        output: Output,
        rows: NDArray[np.int64],
        pieces: list[Piece],
        answer: Answer,
    ) -> None:
        if output == "dense":
            found = self._width(
                answer, _data(answer, len(pieces), "embedding"), len(pieces), output
            )
            cut = unit_rows(answer, found[:, : self.settings.truncate_dim], what="dense vectors")
            collector.put(rows, Pass(torch.from_numpy(cut), None, None))
            return
        given = _data(answer, len(pieces), "data")
        counts = [len(piece.ids) - self._vocabulary.get().frame.size for piece in pieces]
        if output == "sparse":
            weights = [_weights(answer, *one) for one in zip(given, counts, strict=True)]
            framed = [self._framed(one) for one in weights]
            collector.put(rows, Pass(None, torch.from_numpy(np.concatenate(framed)), None))
            return
        vectors = [
            unit_rows(answer, self._width(answer, one, count, output), what="token vectors")
            for one, count in zip(given, counts, strict=True)
            if count or one
        ]
        packed = np.concatenate(vectors) if vectors else np.empty((0, self._colbert_width()))
        collector.put(rows, Pass(None, None, torch.from_numpy(packed.astype(np.float32))))

    def _framed(self, weights: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the weights with a 0 for each special token, which the server leaves out."""
        frame = self._vocabulary.get().frame
        return np.pad(weights, (len(frame.before), len(frame.after)))

    def _colbert_width(self) -> int:
        if "colbert" not in self._widths:  # nothing but empty texts came so far
            self._compute(["a"], query=False, outputs=("colbert",), show_progress=False)
        return self._widths["colbert"]


def _by_output(url: str | Mapping[Output, str]) -> dict[Output, str]:
    if isinstance(url, str):
        return {"dense": url}
    known = isinstance(url, Mapping) and url and set(url) <= set(ALL_OUTPUTS)
    if not known:
        raise InputError(
            "url expects a server's address, or {'dense': …, 'sparse': …, 'colbert': …} with some "
            f"of these, got {list(url) if isinstance(url, Mapping) else type(url).__name__}."
        )
    return {output: url[output] for output in ALL_OUTPUTS if output in url}


def _stated(server: Transport, model: str | None) -> dict[str, Any]:
    answer = server.get("/v1/models")
    found = answer.json()
    listed = found.get("data") if isinstance(found, dict) else None
    entries = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    named = {str(one["id"]): one for one in entries if isinstance(one.get("id"), str)}
    chosen = next(iter(named), None) if model is None else model
    if chosen not in named:
        raise answer.wrong(f"the model {model or 'it serves'!r}", f"{list(named)[:5]}")
    return {key: named[chosen].get(key) for key in ("id", "root", "max_model_len")}


def _data(answer: Answer, count: int, key: str) -> list[Any]:
    """Return the entry of each input, in the order of the inputs."""
    found = answer.json()
    listed = rows_of(
        answer, found.get("data") if isinstance(found, dict) else None, count, what="rows"
    )
    entries = [one for one in listed if isinstance(one, dict)]
    by_index = {one["index"]: one for one in entries if type(one.get("index")) is int}
    if set(by_index) != set(range(count)) or any(key not in one for one in by_index.values()):
        raise answer.wrong(
            f"entries 0 to {count - 1} with {key!r}", f"{sorted(map(str, by_index))}"
        )
    return [by_index[place][key] for place in range(count)]


def _weights(answer: Answer, given: object, count: int) -> NDArray[np.float32]:
    """Return (t,) weights ≥ 0, one a token of the text, given as (t,) or (t, 1)."""
    if isinstance(given, list) and given and isinstance(given[0], list):
        return _checked(answer, numbers(answer, given, (count, 1), what="term weights")[:, 0])
    if count == 0 and given == []:
        return np.zeros(0, np.float32)
    return _checked(answer, numbers(answer, given, (count,), what="term weights"))


def _checked(answer: Answer, weights: NDArray[np.float32]) -> NDArray[np.float32]:
    if (weights < 0).any():
        raise answer.wrong("term weights ≥ 0", f"{weights.min()}")
    return weights
