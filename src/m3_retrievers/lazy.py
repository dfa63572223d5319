"""Tables of contents whose names load on first use, and the check for an optional package."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from m3_retrievers.errors import MissingExtraError


def contents(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return ``__getattr__`` and ``__dir__`` for a package whose names load on first use.

    package: its ``__name__``. homes: the module, relative to the package, of each name.
    """
    module = sys.modules[package]

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f"{package}.{homes[name]}"), name)
        setattr(module, name, value)  # found once; the next look-up does not come here
        return value

    def names() -> list[str]:
        """Leave out what the table of contents itself imported: it is no part of the surface."""
        return sorted({name for name in vars(module) if name.startswith("__")} | set(homes))

    return load, names


def require_package(package: str, *, module: str, extra: str, purpose: str) -> None:
    """Raise MissingExtraError, with the pip command, unless ``module`` can be imported.

    Looks for the module without importing it. package: its name on the package index.

    >>> require_package("numpy", module="numpy", extra="all", purpose="Counting")
    """
    if find_spec(module) is None:
        raise MissingExtraError(package=package, extra=extra, purpose=purpose)
