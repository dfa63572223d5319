"""From a file's text to passages.

A passage is what one hit shows: a bounded number of tokens, with its source and line, and an
id (``source#number``) that stays the same while the file does.
"""

from __future__ import annotations

from m3_retrievers.corpora.blocks import prose_blocks, python_blocks
from m3_retrievers.corpora.splitting import Splitter
from m3_retrievers.types.hits import Record


def read_passages(text: str, *, source: str, splitter: Splitter | None = None) -> list[Record]:
    r"""Return one file's passages; metadata: source, line, title.

    Prose is split at headings and paragraphs, Python at its top-level definitions. splitter:
    how long passages are; None takes 200 words.

    >>> [p.id for p in read_passages("# One\n\nFirst.\n\n# Two\n\nSecond.", source="a.md")]
    ['a.md#1', 'a.md#2']
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    blocks = python_blocks(text) if source.endswith(".py") else prose_blocks(text)
    passages = (splitter or Splitter()).split(text, blocks)
    return [
        Record(
            f"{source}#{number}",
            passage.text,
            {"source": source, "line": passage.line, "title": passage.title or source},
        )
        for number, passage in enumerate(passages, start=1)
    ]
