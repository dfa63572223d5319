"""HttpEncoder: any encoder that ``m3-retrievers serve`` runs somewhere else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np

from m3_retrievers import errors
from m3_retrievers.checks import check_texts
from m3_retrievers.encoder.base import BaseEncoder
from m3_retrievers.encoder.batching import plan_batches
from m3_retrievers.encoder.distinct import distinct_texts
from m3_retrievers.encoder.pieces import Tokens
from m3_retrievers.encoder.reading import Reading, encode_once
from m3_retrievers.encoder.recent import Keep
from m3_retrievers.encoder.remote.connection import Connection, about_texts, connect
from m3_retrievers.encoder.remote.exchange import Answer, Request
from m3_retrievers.encoder.remote.wire import WireType, check_wire_type, unpacked
from m3_retrievers.errors import InputError, M3Warning, MissingHeadError
from m3_retrievers.types.packed import TokenWeight
from m3_retrievers.types.plan import HybridWeights
from m3_retrievers.types.representations import ALL_OUTPUTS, Output, Representations
from m3_retrievers.types.tokens import TokenView

# How many characters a token has at least, on average, in any language; only batches are cut by it.
_CHARACTERS_A_TOKEN = 3
_NO_TOKENS = Tokens(np.zeros(0, np.int64))
_WARNINGS = {
    kind.__name__: kind
    for kind in (errors.TruncationWarning, errors.UnknownTokenWarning, errors.MemoryWarning)
}


@dataclass(frozen=True, slots=True)
class Served:
    """What a server states about its encoder."""

    name: str
    outputs: tuple[Output, ...]
    dimension: int
    vocabulary_size: int
    weights: HybridWeights
    fingerprint: str
    max_texts: int


class HttpEncoder(BaseEncoder):
    """The encoder of a server that ``m3-retrievers serve`` started, whatever it is.

    url: its address. dtype: of the numbers on their way; ``"float16"`` halves them and costs
    about 1e-3. keep: of what came last. connection: key, time-out, retries, requests at once.

    The server reads the texts: what it cuts or cannot read is warned of here, once a call, and
    not again for a text that is kept. The fingerprint is that of the server's encoder, so that
    an index built there opens here and the other way round; an answer of another model than the
    first one's is an EncoderAnswerError.

    Raises InputError for options, EncoderUnavailableError for a server that does not answer.
    """

    def __init__(
        self,
        url: str,
        *,
        dtype: WireType = "float32",
        connection: Connection | None = None,
        keep: Keep | None = Keep(),  # noqa: B008  (frozen)
    ) -> None:
        super().__init__(keep=keep)
        check_wire_type(dtype)
        self._server = connect(url, connection, purpose="HttpEncoder")
        self._url, self._dtype, self._connection = url, dtype, connection

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle address and options; a key is among them."""
        made = partial(type(self), dtype=self._dtype, connection=self._connection, keep=self.keep)
        return made, (self._url,)

    def __repr__(self) -> str:
        return f"HttpEncoder({self._server.server!r})"

    @cached_property
    def served(self) -> Served:
        """What the server states about its encoder, asked for once."""
        return _served(self._server.get("/health"))

    @property
    def name(self) -> str:
        """The name of the server's encoder."""
        return self.served.name

    @property
    def outputs(self) -> tuple[Output, ...]:
        """The representations the server's encoder makes."""
        return self.served.outputs

    @property
    def default_weights(self) -> HybridWeights:
        """The hybrid weights that suit it."""
        return self.served.weights

    @property
    def dimension(self) -> int:
        """Width h of the dense output; MissingHeadError without one."""
        return self._width("dense", self.served.dimension)

    @property
    def vocabulary_size(self) -> int:
        """Width v of the sparse output; MissingHeadError without one."""
        return self._width("sparse", self.served.vocabulary_size)

    @property
    def fingerprint(self) -> str:
        """That of the server's encoder."""
        return self.served.fingerprint

    def view(self, text: str, *, query: bool, output: Output | None = None) -> TokenView:
        """Return a text's tokens as the server's encoder reads them."""
        check_texts([text])
        payload = {"text": text, "role": _role(query), "output": output}
        return _token_view(self._server.post("/view", payload, about=about_texts([text])))

    def terms(self, ids: Sequence[int]) -> list[str]:
        """Return the vocabulary's spelling of sparse columns."""
        wanted = [int(id) for id in ids]
        if not wanted:
            return []
        answer = self._server.post("/terms", {"ids": wanted}, about="")
        found = answer.json()
        spelled = found.get("terms") if isinstance(found, dict) else None
        if not isinstance(spelled, list) or [type(one) for one in spelled] != [str] * len(wanted):
            raise answer.wrong(f"{len(wanted)} strings", f"{found!r:.60}")
        return list(spelled)

    def close(self) -> None:
        """Close the connections; a later call opens others."""
        self._server.close()

    # Inside

    def _width(self, output: Output, width: int) -> int:
        if output not in self.outputs:
            raise MissingHeadError(f"{self.name!r} makes no {output} output, only {self.outputs}.")
        return width

    def _compute(
        self,
        texts: Sequence[str],
        *,
        query: bool,
        outputs: tuple[Output, ...],
        show_progress: bool,
    ) -> Representations:
        if "tokens" in outputs:
            raise MissingHeadError(
                f"{self._server.server} sends no output 'tokens'. Use view(text, query=…)."
            )
        different, given = distinct_texts(texts)
        asked = different or [""]
        nothing = np.zeros(len(asked), bool)
        reading = Reading(asked, [_NO_TOKENS] * len(asked), [], nothing, given)
        return encode_once(
            reading,
            partial(self._ask, query),
            query=query,
            outputs=outputs,
            has=self.outputs,
            recent=self._recent,
            show_progress=show_progress,
        )

    def _ask(
        self,
        query: bool,
        reading: Reading,
        outputs: tuple[Output, ...],
        done: Callable[[int], object],
    ) -> Representations:
        texts = list(reading.texts)
        lengths = np.array([len(text) // _CHARACTERS_A_TOKEN + 2 for text in texts], np.int64)
        budget, most = self._server.connection.batch_tokens, self.served.max_texts
        batches = [
            batch[first : first + most]
            for batch in plan_batches(lengths, budget=budget)
            for first in range(0, len(batch), most)
        ]

        def requests() -> Iterator[Request]:
            for rows in batches:
                part = [texts[row] for row in rows]
                payload = {
                    "texts": part,
                    "role": _role(query),
                    "outputs": outputs,
                    "dtype": self._dtype,
                }
                yield Request("/encode", payload, about_texts(part))

        copies = np.bincount(reading.given, minlength=len(texts))
        parts: list[Representations] = [Representations()] * len(batches)
        said: list[tuple[str, str]] = []
        for place, answer in self._server.post_all(requests()):
            parts[place] = self._read(answer, outputs, len(batches[place]), said)
            done(int(copies[batches[place]].sum()))
        _warn(said)
        order = np.argsort(np.concatenate(batches))
        return Representations.concatenate(parts)[order]

    def _read(
        self,
        answer: Answer,
        outputs: tuple[Output, ...],
        rows: int,
        said: list[tuple[str, str]],
    ) -> Representations:
        widths: dict[Output, int] = {
            "dense": self.served.dimension,
            "sparse": self.served.vocabulary_size,
        }
        found, about = unpacked(answer, outputs, rows=rows, widths=widths)
        if about.get("fingerprint") != self.served.fingerprint:
            raise answer.wrong(
                f"vectors of {self.name!r}",
                "those of another model: the server was started again. Make a new HttpEncoder",
            )
        warned = about.get("warnings")
        for one in warned if isinstance(warned, list) else []:
            if isinstance(one, list) and len(one) == 2 and one[0] in _WARNINGS:
                said.append((one[0], f"{one[1]}"[:500]))
        return found

    def _renew_after_fork(self) -> bool:
        super()._renew_after_fork()
        self._server.renew_after_fork()
        return False


def _role(query: bool) -> str:
    return "query" if query else "document"


def _warn(said: Sequence[tuple[str, str]]) -> None:
    """Give each kind of warning once, with the first message of its kind."""
    for kind, count in Counter(name for name, _ in said).items():
        first = next(message for name, message in said if name == kind)
        more = f" (The same in {count - 1} more requests.)" if count > 1 else ""
        category: type[M3Warning] = _WARNINGS[kind]
        errors.warn(f"{first}{more}", category)


def _served(answer: Answer) -> Served:
    """Return what ``/health`` states; EncoderAnswerError for what is no server of ours."""
    found = answer.json()
    try:
        model, limits = found["model"], found["limits"]
        outputs = tuple(one for one in ALL_OUTPUTS if one in model["outputs"])
        widths = [model["dimension"], model["vocabulary_size"], limits["max_texts"]]
        stated = isinstance(model["name"], str) and isinstance(model["fingerprint"], str)
        whole = stated and outputs and all(type(n) is int and n >= 0 for n in widths) and widths[2]
        weights = HybridWeights(**model["weights"])
    except (KeyError, TypeError, InputError) as error:
        raise _no_server(answer) from error
    if not whole:
        raise _no_server(answer)
    return Served(
        model["name"], outputs, widths[0], widths[1], weights, model["fingerprint"], widths[2]
    )


def _no_server(answer: Answer) -> Exception:
    return answer.wrong("what 'm3-retrievers serve' states", f"{answer.content[:60]!r}")


def _token_view(answer: Answer) -> TokenView:
    found = answer.json()
    try:
        tokens = tuple(
            TokenWeight(int(id), str(surface), int(start), int(end), float(weight))
            for id, surface, start, end, weight in found["tokens"]
        )
        places = tuple(None if at is None else int(at) for at in found["vector_tokens"])
        labels = tuple(str(label) for label in found["vector_labels"])
        return TokenView(tokens, int(found["unseen"]), places, labels)
    except (KeyError, TypeError, ValueError) as error:
        raise answer.wrong("a text's tokens", f"{answer.content[:60]!r}") from error
