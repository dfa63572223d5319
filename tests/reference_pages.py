"""Writes the reference from the docstrings, a page a public room; any warning ends it.

``python tests/reference_pages.py FOLDER`` leaves a site of plain files that needs no network.
"""

import importlib
import re
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import pdoc
import pdoc.render
from jinja2 import pass_context
from pdoc.render_helpers import to_markdown_with_context

ROOMS = (
    "m3_retrievers",
    "m3_retrievers.langchain",
    "m3_retrievers.llama_index",
    "m3_retrievers.explain",
    "m3_retrievers.evaluation",
    "m3_retrievers.training",
    "m3_retrievers.serve",
    "m3_retrievers.scoring",
    "m3_retrievers.testing",
    "m3_retrievers.lexical.tokenizers",
    "m3_retrievers.types.hits",
    "m3_retrievers.types.plan",
    "m3_retrievers.types.representations",
    "m3_retrievers.types.packed",
    "m3_retrievers.index.base",
    "m3_retrievers.index.filters",
    "m3_retrievers.errors",
)
# "k: how many" or "legs, recall: as for …" at the start of a line: an argument
_ARGUMENT = re.compile(r"^(\w+(?:, \w+)*): ", re.MULTILINE)


def public(name: str) -> ModuleType:
    """Return a room with its names in it: they load on first use, and pdoc looks, not asks."""
    room = importlib.import_module(name)
    for one in getattr(room, "__all__", ()):
        setattr(room, one, getattr(room, one))
    return room


@pass_context
def with_arguments_listed(context: Any, docstring: str) -> str:
    """Return a docstring as Markdown, its arguments as the points of a list."""
    return _ARGUMENT.sub(r"- **\1**: ", to_markdown_with_context(context, docstring))


def write(folder: Path) -> None:
    """Write the pages of all rooms; ``folder`` / index.html leads to them."""
    for name in ROOMS:
        public(name)
    pdoc.render.configure(docformat="markdown", show_source=False)
    pdoc.render.env.filters["to_markdown"] = with_arguments_listed
    pdoc.pdoc(*ROOMS, output_directory=folder)


if __name__ == "__main__":
    warnings.simplefilter("error")
    write(Path(sys.argv[1]))
