"""What the rest of the package asks of an encoder, and what all of our own have in common.

Whatever has the members of ``Encoder`` is one: it need not inherit from anything. ``BaseEncoder``
adds, to one method that computes, everything callers expect: checks, shared forward passes, a
store of what was computed last, pairs, long corpora, copies, forks.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import islice
from typing import Any, Protocol

from m3_retrievers import scoring
from m3_retrievers.checks import check_k, check_text, check_texts
from m3_retrievers.encoder import forking
from m3_retrievers.encoder.coalesce import Coalesced
from m3_retrievers.encoder.distinct import distinct_pairs
from m3_retrievers.encoder.reading import progress
from m3_retrievers.encoder.recent import Keep, Recent
from m3_retrievers.encoder.settings import choose_outputs
from m3_retrievers.errors import InputError
from m3_retrievers.habits import guided
from m3_retrievers.names import OF_ENCODERS
from m3_retrievers.types.plan import HybridWeights, check_weights
from m3_retrievers.types.representations import Output, Representations
from m3_retrievers.types.scores import Scores
from m3_retrievers.types.tokens import TokenView


class Encoder(Protocol):
    """Texts in, representations out.

    An encoder may lack outputs: a SPLADE model has ``("sparse",)`` alone. Equal texts have equal
    rows, whatever stands beside them.
    """

    @property
    def name(self) -> str:
        """What the model is called in messages and saved indexes."""
        ...

    @property
    def outputs(self) -> tuple[Output, ...]:
        """The representations it makes, of ``"dense"``, ``"sparse"``, ``"colbert"``."""
        ...

    @property
    def dimension(self) -> int:
        """Width h of the dense output; MissingHeadError without one."""
        ...

    @property
    def vocabulary_size(self) -> int:
        """Width v of the sparse output."""
        ...

    @property
    def default_weights(self) -> HybridWeights:
        """The hybrid weights that suit it."""
        ...

    @property
    def fingerprint(self) -> str:
        """Text that differs where documents' representations would; an index is bound to it."""
        ...

    def encode_queries(
        self,
        texts: Sequence[str],
        *,
        outputs: Sequence[Output] | None = None,
        show_progress: bool = False,
    ) -> Representations:
        """Return representations of n queries, in their order; None is every output it has."""
        ...

    def encode_documents(
        self,
        texts: Sequence[str],
        *,
        outputs: Sequence[Output] | None = None,
        show_progress: bool = False,
    ) -> Representations:
        """Return representations of n documents, in their order."""
        ...

    def encode_query(
        self, text: str, *, outputs: Sequence[Output] | None = None
    ) -> Representations:
        """Return representations of one query, a record of one row."""
        ...

    def view(self, text: str, *, query: bool, output: Output | None = None) -> TokenView:
        """Return a text's tokens as the model of an output reads them, for explanations.

        output: None is the most detailed view there is.
        """
        ...

    def terms(self, ids: Sequence[int]) -> list[str]:
        """Return the vocabulary's spelling of sparse columns."""
        ...


@guided(**OF_ENCODERS)
class BaseEncoder(ABC):
    """An encoder from one method that computes.

    keep: how much of what was computed last is kept, so that the embeddings, the sparse
    embeddings and the reranker of one chain run the model once a text; None keeps nothing.

    Safe to share between threads. A copy is the encoder itself.
    """

    def __init__(self, *, keep: Keep | None) -> None:
        if keep is not None and not isinstance(keep, Keep):
            raise InputError(
                f"keep expects Keep(queries=…, document_bytes=…) or None, got {keep!r:.60}."
            )
        self.keep = keep
        self._recent = None if keep is None else Recent(keep)
        self._sharing = threading.Lock()
        self._shared: dict[tuple[Output, ...], Coalesced[str, Representations]] = {}
        forking.watch(self)

    # What an encoder does

    @property
    @abstractmethod
    def name(self) -> str:
        """What the model is called."""

    @property
    @abstractmethod
    def outputs(self) -> tuple[Output, ...]:
        """The representations this model has; known without loading it."""

    @property
    @abstractmethod
    def default_weights(self) -> HybridWeights:
        """The hybrid weights that suit it."""

    @abstractmethod
    def _compute(
        self,
        texts: Sequence[str],
        *,
        query: bool,
        outputs: tuple[Output, ...],
        show_progress: bool,
    ) -> Representations:
        """Return representations of texts that were checked.

        outputs: of those this encoder has, or ``"tokens"``.
        """

    def _turn(self) -> AbstractContextManager[object]:
        """Return the context in which queries are computed."""
        return nullcontext()

    def _renew_after_fork(self) -> bool:
        """Drop what threads of the parent may hold locked; return whether a model is loaded."""
        self._sharing = threading.Lock()
        self._shared = {}
        self._recent = None if self.keep is None else Recent(self.keep)
        return False

    # What callers get

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> BaseEncoder:
        """Return the encoder itself: it never changes, and gigabytes are not copied in passing."""
        return self

    __copy__ = __deepcopy__

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, outputs={self.outputs})"

    def encode_queries(
        self,
        texts: Sequence[str],
        *,
        outputs: Sequence[Output] | None = None,
        show_progress: bool = False,
    ) -> Representations:
        """Return representations of n queries, in their order; only the outputs asked for.

        outputs: any of ``"dense"``, ``"sparse"``, ``"colbert"``, ``"tokens"``; None is all the
        model has (without tokens). Equal texts have equal rows. A text of unknown tokens alone
        scores 0: its dense row is 0, without terms and vectors (UnknownTokenWarning).

        Raises InputError for what is no string, MissingHeadError for an output the model lacks,
        TextTooLongError under ``truncation="error"``.
        """
        return self._encode(texts, query=True, outputs=outputs, show_progress=show_progress)

    def encode_documents(
        self,
        texts: Sequence[str],
        *,
        outputs: Sequence[Output] | None = None,
        show_progress: bool = False,
    ) -> Representations:
        """Return representations of n documents; arguments as for ``encode_queries``."""
        return self._encode(texts, query=False, outputs=outputs, show_progress=show_progress)

    def encode_query(
        self, text: str, *, outputs: Sequence[Output] | None = None
    ) -> Representations:
        """Return representations of one query, a record of one row.

        Threads that call this at the same time share a forward pass.
        """
        check_text(text)
        wanted = choose_outputs(outputs, has=self.outputs, model=self.name)
        with self._sharing:
            run = partial(self._queries_apart, outputs=wanted)
            shared = self._shared.setdefault(wanted, Coalesced(run, turn=self._turn))
        return shared(text)

    def iter_documents(
        self,
        texts: Iterable[str],
        *,
        outputs: Sequence[Output] | None = None,
        batch_size: int = 1024,
        show_progress: bool = False,
    ) -> Iterator[Representations]:
        """Yield representations of ``batch_size`` documents at a time, in order.

        For corpora that do not fit in memory: ``texts`` may be a generator, and is read no
        further than the batch at hand.
        """
        check_k(batch_size, name="batch_size")
        if isinstance(texts, str) or not isinstance(texts, Iterable):
            check_texts(texts)  # raises
        source = iter(texts)
        with progress(show=show_progress) as done:
            while batch := list(islice(source, batch_size)):
                yield self.encode_documents(batch, outputs=outputs)
                done(len(batch))

    def score_pairs(
        self,
        pairs: Sequence[tuple[str, str]],
        *,
        weights: HybridWeights | None = None,
    ) -> Scores:
        """Return the scores of n (query, document) pairs, each a float32 array (n,).

        Equal to FlagEmbedding's ``compute_score``, which names the fields. weights: None is
        the model's own. A text that occurs in several pairs is encoded once.
        """
        weighted = check_weights(weights, default=self.default_weights)
        split = distinct_pairs(pairs)
        return scoring.pair_scores(
            self.encode_queries(split.queries),
            self.encode_documents(split.documents),
            split.q_rows,
            split.d_rows,
            weights=weighted,
        )

    def _queries_apart(
        self, texts: Sequence[str], *, outputs: tuple[Output, ...]
    ) -> list[Representations]:
        encoded = self._encode(texts, query=True, outputs=outputs)
        return [encoded[row] for row in range(len(texts))]

    def _encode(
        self,
        texts: Sequence[str],
        *,
        query: bool,
        outputs: Sequence[Output] | None,
        show_progress: bool = False,
    ) -> Representations:
        checked = check_texts(texts)
        wanted = choose_outputs(outputs, has=self.outputs, model=self.name)
        return self._compute(checked, query=query, outputs=wanted, show_progress=show_progress)
