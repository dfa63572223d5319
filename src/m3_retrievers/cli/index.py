"""``m3-retrievers index``: a folder's files into a saved index, and up to date again."""

from __future__ import annotations

from pathlib import Path

from m3_retrievers.cli.console import legs_for, messages, results
from m3_retrievers.corpora.folder import read_folder
from m3_retrievers.encoder.encoder import M3Encoder
from m3_retrievers.errors import InputError
from m3_retrievers.retrieval.retriever import HybridRetriever
from m3_retrievers.types.hits import Record


def run(folder: Path, *, out: Path, model: str) -> None:
    """Index what is new or changed, drop what is gone, save."""
    found = read_folder(folder)
    if not found.passages:
        raise InputError(
            f"{folder} holds no .md, .txt, .rst or .py file with text. Give a folder that does."
        )
    for reason, count in found.left_out.items():
        messages.print(f"{count} files {reason}", style="dim")
    encoder = M3Encoder.from_pretrained(model)
    retriever = open_or_create(out, encoder)
    ids = {record.id for record in found.passages}
    gone = [record.id for record in stored(retriever) if record.id not in ids]
    known = {record.id: record for record in stored(retriever)}
    changed = [record for record in found.passages if known.get(record.id) != record]
    retriever.delete(gone)
    retriever.upsert(changed, show_progress=True)
    retriever.save(out)
    results().print(
        f"{len(retriever)} passages of {found.files} files in {out} "
        f"({len(changed)} new or changed, {len(gone)} removed).\n"
        f'Ask it:  m3-retrievers search {out} "your question"',
        highlight=False,
        soft_wrap=True,
    )


def open_or_create(out: Path, encoder: M3Encoder) -> HybridRetriever:
    """Return the retriever saved at ``out``, or a new one."""
    if (out / "manifest.json").exists():
        return HybridRetriever.load(out, encoder)
    return HybridRetriever(encoder, legs=legs_for(encoder))


def stored(retriever: HybridRetriever) -> list[Record]:
    """Return every record of a retriever's index."""
    return retriever.get(retriever.index.ids)
