"""TeiEncoder: all of M3 from an unmodified text-embeddings-inference server.

``/embed_all`` gives the last hidden state of every token; both heads are applied here, by the
arithmetic that a local model's states go through.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from m3_retrievers.encoder.checksums import sha256
from m3_retrievers.encoder.collect import Collector
from m3_retrievers.encoder.files import map_tensors
from m3_retrievers.encoder.forward import pack, project
from m3_retrievers.encoder.heads import (
    COLBERT_FILE,
    SPARSE_FILE,
    Heads,
    HeadSpec,
    head_file,
    load_heads,
)
from m3_retrievers.encoder.lazy import Lazy
from m3_retrievers.encoder.pieces import Piece, Truncation, without_surrogates
from m3_retrievers.encoder.reading import Reading
from m3_retrievers.encoder.recent import Keep
from m3_retrievers.encoder.remote.answers import numbers, rows_of
from m3_retrievers.encoder.remote.connection import Connection, connect, shown
from m3_retrievers.encoder.remote.exchange import Answer
from m3_retrievers.encoder.remote.tokenized import TokenizedEncoder, ask_in_batches
from m3_retrievers.encoder.settings import Settings
from m3_retrievers.encoder.source import Pooling
from m3_retrievers.errors import EncoderAnswerError, InputError
from m3_retrievers.types.plan import HybridWeights
from m3_retrievers.types.representations import ALL_OUTPUTS, Output

if TYPE_CHECKING:
    from m3_retrievers.encoder.remote.transport import Transport

# A token's 1,024 numbers are about 12 kB of JSON: 2,048 tokens make an answer of 25 MB.
_CONNECTION = Connection(batch_tokens=2_048)
_STATES = "hidden states (token, width)"
_CLIENT_BATCH = 32  # what the server admits when it does not say


@dataclass(frozen=True, slots=True, eq=False)
class _Model:
    """What ``forward.project`` asks of a model."""

    heads: Heads
    pooling: Pooling


class TeiEncoder(TokenizedEncoder):
    """BGE-M3, or a model like it, behind text-embeddings-inference.

    heads: a folder with ``sparse_linear`` and ``colbert_linear``; head_spec: which of them.
    tokenizer: folder or hub id of the model's tokenizer; None is the folder of the heads.
    pooling: of the dense output; None takes the server's, by its ``/info``.
    name, weights, keep, truncation and the lengths: as for ``M3Encoder``. connection: key,
    time-out, retries, requests at once.

    The server turns ids into text and reads that again, so that not every sequence of ids
    survives. Each is tried here first: where it would not, the text itself is sent, and a text
    that has to be cut and survives in neither way is an EncoderAnswerError.

    The fingerprint covers tokenizer and heads, byte for byte, and what the server states: model,
    revision, pooling. Of a server started from a folder, which states no revision, the weights
    are not known. fingerprint: states it instead, for an index that M3Encoder built.

    Raises CheckpointError for heads that cannot be used, and errors as ``VllmEncoder`` does.
    """

    def __init__(
        self,
        url: str,
        *,
        heads: str | Path,
        head_spec: HeadSpec = HeadSpec(),  # noqa: B008  (frozen)
        tokenizer: str | Path | None = None,
        pooling: Pooling | None = None,
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
        if pooling not in (None, "cls", "mean"):
            raise InputError(f"pooling expects 'cls', 'mean' or None, got {pooling!r:.40}.")
        self._server = connect(url, connection or _CONNECTION, purpose="TeiEncoder")
        self._heads_folder, self._spec, self._pooling = Path(heads), head_spec, pooling
        self._hidden = _hidden_size(self._heads_folder, head_spec)
        self._project = Lazy(self._load)
        super().__init__(
            name or f"TEI at {shown(self._server.url)}",
            _outputs_of(head_spec),
            tokenizer=heads if tokenizer is None else tokenizer,
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
        self._made: dict[str, Any] = {
            "heads": heads, "head_spec": head_spec, "tokenizer": tokenizer, "pooling": pooling,
            "name": name, "weights": weights, "truncation": truncation,
            "query_max_length": query_max_length, "document_max_length": document_max_length,
            "query_instruction": query_instruction, "truncate_dim": truncate_dim,
            "fingerprint": fingerprint, "connection": connection, "keep": keep,
        }  # fmt: skip
        self._url = url
        if self._hidden is not None:
            self._widths["dense"] = self._hidden

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle address and options; a key is among them."""
        return partial(type(self), **self._made), (self._url,)

    @property
    def _transports(self) -> Sequence[Transport]:
        return (self._server,)

    @cached_property
    def _info(self) -> dict[str, Any]:
        answer = self._server.get("/info")
        found = answer.json()
        if not isinstance(found, dict):
            raise answer.wrong("an object", f"{found!r:.60}")
        return found

    def _identity(self) -> list[Any]:
        stems = [SPARSE_FILE] if self._spec.sparse else []
        stems += [COLBERT_FILE] if self._spec.colbert is True else []
        files = [head_file(self._heads_folder, stem) for stem in stems]
        stated = [self._info.get(key) for key in ("model_id", "model_sha")]
        return [*stated, self._project.get().pooling, [[f.name, sha256(f)] for f in files]]

    def _longest(self) -> int:
        limit = self._info.get("max_input_length")
        return limit if type(limit) is int and limit > 2 else super()._longest()

    def _load(self) -> _Model:
        pooling = self._pooling or _stated_pooling(self._info)
        if pooling is None:
            raise InputError(
                f"pooling expects 'cls' or 'mean' where {self._server.server}/info states neither, "
                "got None. Give the model's own."
            )
        heads = load_heads(self._heads_folder, self._spec, hidden_size=self._hidden or 0)
        return _Model(heads, pooling)

    def _fill(
        self,
        collector: Collector,
        reading: Reading,
        outputs: tuple[Output, ...],
        done: Callable[[int], object],
    ) -> None:
        most = self._info.get("max_client_batch_size")
        ask_in_batches(
            self._server,
            reading,
            request=partial(self._request, reading),
            take=partial(self._take, collector, outputs),
            done=done,
            most=most if type(most) is int and most > 0 else _CLIENT_BATCH,
        )

    def _request(self, reading: Reading, pieces: list[Piece]) -> tuple[str, Any]:
        return "/embed_all", {"inputs": [self._sent(reading, one) for one in pieces]}

    def _sent(self, reading: Reading, piece: Piece) -> str | list[int]:
        """Return what the server reads as these very tokens."""
        backend, ids = self.tokenizer.backend_tokenizer, piece.ids.tolist()
        again = backend.decode(ids, skip_special_tokens=False)
        if backend.encode(again, add_special_tokens=False).ids == ids:
            return list(ids)
        text = without_surrogates(reading.texts[piece.text])
        first, last = _span(backend, text, piece)
        for candidate in (text, self.settings.query_instruction + text, text[first:last]):
            if candidate and backend.encode(candidate).ids == ids:
                return candidate
        raise EncoderAnswerError(
            f"{self._server.server} is expected to read {text[:50]!r} as the {len(ids)} tokens it "
            "was cut to, and would not: it turns ids into text and reads that again. Split the "
            "text so that it fits without a cut."
        )

    def _take(
        self,
        collector: Collector,
        outputs: tuple[Output, ...],
        rows: NDArray[np.int64],
        pieces: list[Piece],
        answer: Answer,
    ) -> None:
        given = rows_of(answer, answer.json(), len(pieces), what="texts")
        if self._hidden is None:
            self._hidden = numbers(answer, given[0], (None, None), what="hidden states").shape[1]
            self._widths["dense"] = self._hidden
        states = [
            numbers(answer, one, (len(piece.ids), self._hidden), what=_STATES)
            for one, piece in zip(given, pieces, strict=True)
        ]
        batch = pack(pieces, device=torch.device("cpu"))
        hidden = torch.from_numpy(np.concatenate(states))
        with torch.inference_mode():
            result = project(
                self._project.get(),
                hidden,
                batch,
                outputs=outputs,
                truncate_dim=self.settings.truncate_dim,
            )
        collector.put(rows, result)

    def _renew_after_fork(self) -> bool:
        self._project.renew_lock()
        return super()._renew_after_fork()


def _outputs_of(spec: HeadSpec) -> tuple[Output, ...]:
    has = {"dense": True, "sparse": spec.sparse, "colbert": bool(spec.colbert)}
    return tuple(output for output in ALL_OUTPUTS if has[output])


def _hidden_size(folder: Path, spec: HeadSpec) -> int | None:
    """Return the width of the states that the heads read; None where there is no head."""
    stems = [SPARSE_FILE] * spec.sparse + [COLBERT_FILE] * (spec.colbert is True)
    for stem in stems:
        weight = map_tensors(head_file(folder, stem)).get("weight")
        if weight is not None and weight.ndim == 2:
            return int(weight.shape[1])
    return None


def _span(backend: Any, text: str, piece: Piece) -> tuple[int, int]:
    """Return the characters of a text that a piece's tokens stand for."""
    offsets = backend.encode(text, add_special_tokens=False).offsets[piece.start : piece.stop]
    return (offsets[0][0], offsets[-1][1]) if offsets else (0, 0)


def _stated_pooling(info: dict[str, Any]) -> Pooling | None:
    """Return the pooling that ``/info`` states: {"model_type": {"embedding": {"pooling": …}}}."""
    kind = info.get("model_type")
    embedding = kind.get("embedding") if isinstance(kind, dict) else None
    pooling = embedding.get("pooling") if isinstance(embedding, dict) else None
    return pooling if pooling in ("cls", "mean") else None
