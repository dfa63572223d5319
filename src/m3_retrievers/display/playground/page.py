"""The page as one document: style and scripts inline, and a policy that allows these alone."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

# In the order in which they need each other; each file is a module that imports from earlier ones.
SCRIPTS = (
    "dom.js",
    "scores.js",
    "source.js",
    "python.js",
    "heat_map.js",
    "hit.js",
    "settings.js",
    "column.js",
    "main.js",
)
_IMPORT = re.compile(r"^import [^;]*;\n", re.MULTILINE)
_EXPORT = re.compile(r"^export ", re.MULTILINE)


def page(recorded: Mapping[str, Any] | None = None) -> str:
    """Return the page as one HTML document; with what was recorded, it asks no server.

    Its policy stands in it as well as in a header, for a document that no server sends.
    """
    data = "null" if recorded is None else json.dumps(recorded, separators=(",", ":"))
    values = {
        "policy": policy(served=recorded is None),
        "style": _file("style.css"),
        "script": script(),
        # JSON in ASCII; no tag and no comment can begin in it
        "recorded": data.replace("<", "\\u003c"),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], _file("page.html"))


@cache
def script() -> str:
    """Return the modules as one, without their imports and exports of each other."""
    whole = "\n".join(_file(name) for name in SCRIPTS)
    return _EXPORT.sub("", _IMPORT.sub("", whole))


@cache
def policy(*, served: bool) -> str:
    """Return the Content-Security-Policy: this style and script, and requests to its own server.

    Nothing may become markup in it either: the browser refuses every way but text.
    """
    rules = {
        "default-src": "'none'",
        "script-src": _hash(script()),
        "style-src": _hash(_file("style.css")),
        "img-src": "data:",
        "connect-src": "'self'" if served else "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


@cache
def _file(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")
