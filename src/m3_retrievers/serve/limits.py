"""What a server takes on, and for how long."""

from __future__ import annotations

import math
from dataclasses import dataclass

from m3_retrievers.checks import check_k
from m3_retrievers.errors import InputError


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of a server.

    batch_tokens: tokens, padding included, of texts of several requests that share a pass; None
    takes what suits the device. queue: texts that may wait; beyond it a request is told to come
    again (503). max_texts, max_characters: of one request, and of one text of it. max_body:
    bytes of a request. timeout: seconds until an answer is given up (504).

    Raises InputError for a value that is none of these, and for a queue that the largest
    request would not fit into.
    """

    batch_tokens: int | None = None
    queue: int = 1024
    max_texts: int = 512
    max_characters: int = 1_000_000
    max_body: int = 16 * 2**20
    timeout: float = 60.0

    def __post_init__(self) -> None:
        for name in ("queue", "max_texts", "max_characters", "max_body"):
            check_k(getattr(self, name), name=name)
        if self.batch_tokens is not None:
            check_k(self.batch_tokens, name="batch_tokens")
        if not isinstance(self.timeout, int | float) or not 0 < self.timeout < math.inf:
            raise InputError(f"timeout expects seconds > 0, got {self.timeout!r:.40}.")
        if self.max_texts > self.queue:
            raise InputError(
                f"queue expects room for max_texts={self.max_texts} texts of one request, got "
                f"{self.queue}. Give a longer queue, or a smaller max_texts."
            )
