"""Answers and errors as JSON; large ones are written off the event loop."""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import Response

from m3_retrievers.retrieval.threads import in_thread


async def json_response(value: Any, status: int = 200) -> Response:
    """Return a value as JSON: ASCII, without NaN."""
    content = await in_thread(json.dumps, value, allow_nan=False, separators=(",", ":"))
    return Response(content, status, media_type="application/json")


def problem(
    path: str, status: int, message: str, headers: dict[str, str] | None = None
) -> Response:
    """Return an error in the shape that the clients of a path read: OpenAI's, or the others'."""
    kind = _KINDS.get(status, "Backend" if status >= 500 else "Validation")
    value: Any = {"error": message, "error_type": kind}
    if path.startswith("/v1/"):
        value = {"error": {"message": message, "type": kind, "param": None, "code": status}}
    return Response(json.dumps(value), status, headers, media_type="application/json")


_KINDS = {401: "Unauthorized", 404: "NotFound", 503: "Overloaded", 504: "Timeout"}
