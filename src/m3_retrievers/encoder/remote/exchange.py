"""A request to a server and its answer, as the encoders see them; nothing here needs httpx."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from m3_retrievers.errors import EncoderAnswerError


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """One request. about: the texts it is of, as messages speak of them."""

    path: str
    payload: Any = None
    about: str = ""
    method: Literal["GET", "POST"] = "POST"


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What a server answered with status 200, and to what."""

    content: bytes
    server: str
    about: str

    def json(self) -> Any:
        """Return the JSON of the answer; EncoderAnswerError where it is none."""
        try:
            return json.loads(self.content)
        except (ValueError, RecursionError) as error:
            raise self.wrong("JSON", f"{self.content[:80]!r}") from error

    def wrong(self, expected: str, got: str) -> EncoderAnswerError:
        """Return the error for an answer that cannot be right."""
        of = f" for {self.about}" if self.about else ""
        return EncoderAnswerError(
            f"{self.server} is expected to answer with {expected}{of}, got {got}. Check that it "
            "serves the model this encoder was made for."
        )
