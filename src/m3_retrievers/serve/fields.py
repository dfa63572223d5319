"""Requests read from JSON: what was expected, what came, what to do."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.exceptions import HTTPException
from starlette.requests import Request

from m3_retrievers.errors import InputError
from m3_retrievers.serve.limits import Limits
from m3_retrievers.types.plan import HybridWeights, Recall
from m3_retrievers.types.representations import ALL_OUTPUTS, Output, Representations


async def read_json(request: Request, limits: Limits) -> dict[str, Any]:
    """Return the JSON object of a request, reading no more than the limit.

    Only ``application/json`` is read: a page in somebody's browser cannot send that to another
    origin without asking first, and this server gives no such leave.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise HTTPException(
            415, f"expected content-type application/json, got {kind!r:.60}. Send JSON."
        )
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limits.max_body:
            raise HTTPException(
                413, f"expected at most {limits.max_body:,} bytes, got more. Send fewer texts."
            )
        parts.append(part)
    try:
        body = json.loads(b"".join(parts))
    except (ValueError, RecursionError) as error:
        raise InputError(f"expected a JSON object, got what cannot be read ({error}).") from error
    if not isinstance(body, dict):
        raise InputError(f"expected a JSON object, got {type(body).__name__}. See the reference.")
    return body


def texts_of(body: Mapping[str, Any], name: str, limits: Limits, *, least: int = 1) -> list[str]:
    """Return the texts of a field that holds one string or a list of them, within the limits."""
    given = body.get(name)
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        found = "token ids" if _holds_numbers(texts) else type(given).__name__
        advice = (
            "Send text: this server's tokens are its own (langchain-openai: "
            "check_embedding_ctx_length=False)."
            if _holds_numbers(texts)
            else "Send text."
        )
        raise InputError(f"{name} expects a string or a list of strings, got {found}. {advice}")
    if len(texts) < least:
        raise InputError(f"{name} expects at least one text, got none.")
    if len(texts) > limits.max_texts:
        raise HTTPException(
            413,
            f"{name} expects at most {limits.max_texts} texts, got {len(texts)}. Send them in "
            "several requests.",
        )
    longest = max(map(len, texts), default=0)
    if longest > limits.max_characters:
        raise HTTPException(
            413,
            f"{name} expects texts of at most {limits.max_characters:,} characters, got one of "
            f"{longest:,}. Split it.",
        )
    return texts


def text_of(body: Mapping[str, Any], name: str, limits: Limits) -> str:
    """Return the one text of a field."""
    if not isinstance(body.get(name), str):
        raise InputError(f"{name} expects a string, got {type(body.get(name)).__name__}.")
    return texts_of(body, name, limits)[0]


def choice_of(body: Mapping[str, Any], name: str, known: Sequence[str]) -> str:
    """Return one of the values known, the first where the field is left out."""
    value = body.get(name)
    if value is None:
        return known[0]
    if value not in known:
        raise InputError(f"{name} expects one of {list(known)}, got {value!r:.60}.")
    return str(value)


def integer_of(body: Mapping[str, Any], name: str, *, default: int, most: int) -> int:
    """Return an integer from 1 to ``most``."""
    value = body.get(name)
    if value is None:
        return default
    if type(value) is not int or not 1 <= value <= most:
        raise InputError(f"{name} expects an integer from 1 to {most}, got {value!r:.60}.")
    return value


def flag_of(body: Mapping[str, Any], name: str, *, default: bool) -> bool:
    """Return true or false."""
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise InputError(f"{name} expects true or false, got {value!r:.60}.")
    return value


def outputs_of(body: Mapping[str, Any], name: str = "outputs") -> tuple[Output, ...] | None:
    """Return the outputs asked for; None where the field is left out."""
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, list) or not value or not all(one in ALL_OUTPUTS for one in value):
        raise InputError(f"{name} expects a list of {list(ALL_OUTPUTS)}, got {value!r:.60}.")
    return tuple(one for one in ALL_OUTPUTS if one in value)


def weights_of(body: Mapping[str, Any]) -> HybridWeights | None:
    """Return hybrid weights such as ``{"dense": 1, "sparse": 0.3}``; None where left out."""
    value = body.get("weights")
    if value is None:
        return None
    if not isinstance(value, dict) or not set(value) <= set(ALL_OUTPUTS):
        raise InputError(f"weights expects numbers for {list(ALL_OUTPUTS)}, got {value!r:.60}.")
    whole = {name: value.get(name, 0.0) for name in ALL_OUTPUTS}
    return HybridWeights(**whole)


def recall_of(body: Mapping[str, Any], own: Recall, *, most: int) -> Recall:
    """Return depths such as ``{"dense": 50}``, up to ``most``.

    own: the retriever's, for what is left out; the same depth may be asked for whatever it is.
    """
    value = body.get("recall")
    if value is None:
        return own
    if not isinstance(value, dict) or not set(value) <= {"dense", "lexical"}:
        raise InputError(f"recall expects depths of 'dense' and 'lexical', got {value!r:.60}.")
    depths = asdict(own) | value
    for name, depth in depths.items():
        if depth != getattr(own, name) and (type(depth) is not int or not 1 <= depth <= most):
            raise InputError(
                f"recall {name} expects an integer from 1 to {most}, got {depth!r:.60}."
            )
    return Recall(**depths)


def is_query(body: Mapping[str, Any], name: str) -> bool:
    """Whether texts are asked for as queries; documents are what most clients mean."""
    return choice_of(body, name, ("document", "passage", "query")) == "query"


def cut_dense(body: Mapping[str, Any], found: Representations) -> NDArray[np.float32]:
    """Return the dense rows, cut to ``dimensions`` where the request asks for fewer."""
    dense: NDArray[np.float32] = found.require("dense")
    width = dense.shape[1]
    wanted = integer_of(body, "dimensions", default=width, most=width)
    if wanted == width:
        return dense
    cut = dense[:, :wanted].copy()
    lengths = np.linalg.norm(cut, axis=1, keepdims=True)
    np.divide(cut, lengths, out=cut, where=lengths > 0)
    return cut


def _holds_numbers(found: object) -> bool:
    first = found[0] if isinstance(found, list) and found else None
    first = first[0] if isinstance(first, list) and first else first
    return isinstance(first, int)
