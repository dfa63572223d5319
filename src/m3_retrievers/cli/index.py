"""``m3-retrievers index``: a folder's files into a saved index, and up to date again."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from m3_retrievers.cli.console import legs_for, messages, results, write_json
from m3_retrievers.cli.destination import has_index, is_durable, load
from m3_retrievers.cli.home import retriever_at
from m3_retrievers.cli.interrupt import stop_requested
from m3_retrievers.corpora.folder import Folder, check_folder, read_folder
from m3_retrievers.corpora.splitting import Spans, Splitter
from m3_retrievers.encoder.encoder import M3Encoder
from m3_retrievers.encoder.mini import MINI
from m3_retrievers.encoder.pieces import Truncation
from m3_retrievers.encoder.settings import choose_budget
from m3_retrievers.errors import InputError, SavedIndexError
from m3_retrievers.index.opening import shown_address
from m3_retrievers.retrieval.retriever import HybridRetriever
from m3_retrievers.types.hits import Record

# About 200 words of English: enough to answer from, short enough to be about one thing.
_CHUNK = 256
_LEAST = 16


@dataclass(frozen=True, slots=True)
class Options:
    """How passages are cut; chunk None takes what suits the model."""

    chunk: int | None = None
    overlap: int = 0
    truncation: Truncation = "warn"


def run(
    folder: Path, *, out: Path, home: str | None, model: str, options: Options, as_json: bool
) -> bool:
    """Index what is new or changed, drop what is gone; returns whether all was done.

    home: the address of an index that keeps its changes itself; None saves into the folder out.
    """
    check_folder(folder)
    exists = home is None and has_index(out)
    encoder = M3Encoder.from_pretrained(model, truncation=options.truncation)
    splitter = splitter_for(encoder, options)
    if home is not None:
        with retriever_at(home, encoder, create=True) as retriever:
            place = shown_address(home)
            return _update(
                folder, retriever, encoder, splitter, place=place, model=model, as_json=as_json
            )
    durable = is_durable(out)
    if exists:
        retriever = load(out, encoder)
    elif durable:
        retriever = HybridRetriever.open(out, encoder, legs=legs_for(encoder))
    else:
        retriever = HybridRetriever(encoder, legs=legs_for(encoder))
    return _update(
        folder,
        retriever,
        encoder,
        splitter,
        place=str(out),
        model=model,
        as_json=as_json,
        save=not durable,
    )


def _update(
    folder: Path,
    retriever: HybridRetriever,
    encoder: M3Encoder,
    splitter: Splitter,
    *,
    place: str,
    model: str,
    as_json: bool,
    save: bool = False,
) -> bool:
    """Bring a retriever up to date with a folder, and say what was done.

    place: where its index is, as messages show it, and where it is saved if it is to be.
    """
    known = {record.id: record for record in retriever.get(retriever.index.ids)}
    _check_made_here(place, known.values())
    found = _read(folder, splitter)
    changed = [record for record in found.passages if known.get(record.id) != record]
    gone = list(known.keys() - {record.id for record in found.passages})
    retriever.delete(gone)
    done = _encode(retriever, encoder, changed, splitter)
    if save and (done or gone):
        retriever.save(place)
    finished = done == len(changed)
    if not finished:
        kept = f"{done} of {len(changed)} new or changed passages are kept in {place}"
        messages.print(f"Stopped: {kept}. The same command goes on from there.", soft_wrap=True)
    report = {
        "index": place,
        "passages": len(retriever),
        "files": found.files,
        "changed": done,
        "removed": len(gone),
        "left_out": found.left_out,
        "finished": finished,
    }
    if as_json:
        write_json(report)
    elif finished:
        _print(report, model)
    return finished


def splitter_for(encoder: M3Encoder, options: Options) -> Splitter:
    """Return a splitter that measures passages as the encoder will read them.

    Raises InputError for passages longer than the model reads, unless it reads them in windows,
    and for an overlap of more than half a passage.
    """
    model, settings = encoder.checkpoint, encoder.settings
    limit = min(settings.document_max_length, model.max_length) - model.frame.size
    chunk = min(_CHUNK, limit) if options.chunk is None else options.chunk
    most = None if options.truncation == "windows" else limit
    if chunk < min(_LEAST, limit) or (most is not None and chunk > most):
        raise InputError(
            f"--chunk expects {min(_LEAST, limit)} to {limit} tokens, which {encoder.name} reads "
            f"at once, got {chunk}. Choose another, or read longer passages with --truncation "
            "windows."
        )
    return Splitter(spans=_spans(encoder), size=chunk, overlap=options.overlap)


def _spans(encoder: M3Encoder) -> Spans:
    backend = encoder.checkpoint.tokenizer.backend_tokenizer

    def spans(text: str) -> Sequence[tuple[int, int]]:
        offsets: list[tuple[int, int]] = backend.encode(text, add_special_tokens=False).offsets
        return offsets

    return spans


def _check_made_here(place: str, records: Iterable[Record]) -> None:
    """Raise SavedIndexError for an index of anything but files: an update would empty it."""
    for record in records:
        if not record.id.startswith(f"{record.metadata.get('source')}#"):
            raise SavedIndexError(
                f"expected an index that this command made, got {place!r}, which holds "
                f"{record.id!r:.80}: bringing it up to date would remove that. Choose another."
            )


def _read(folder: Path, splitter: Splitter) -> Folder:
    found = read_folder(folder, splitter=splitter)
    for reason, count in found.left_out.items():
        messages.print(f"{count} {'file' if count == 1 else 'files'} {reason}", style="dim")
    if not found.passages:
        raise InputError(
            f"{folder} holds no .md, .txt, .rst or .py file with text. Give a folder that does."
        )
    return found


def _encode(
    retriever: HybridRetriever, encoder: M3Encoder, records: Sequence[Record], splitter: Splitter
) -> int:
    """Encode and store records, batch by batch; returns how many, less where Ctrl-C stopped it."""
    done = 0
    budget = choose_budget(encoder.settings.batch_tokens, encoder.device)
    bar = tqdm(total=len(records), desc="index", unit="passage")
    with bar, stop_requested() as stopped:
        # two forward passes at a time: the bar moves, and texts still share them by length
        for batch in _batches(records, max(1, 2 * budget // splitter.size)):
            retriever.upsert(batch)
            done += len(batch)
            bar.update(len(batch))
            if stopped():
                break
    return done


def _batches(records: Sequence[Record], size: int) -> Iterator[Sequence[Record]]:
    for at in range(0, len(records), size):
        yield records[at : at + size]


def _print(report: Mapping[str, Any], model: str) -> None:
    command = ["m3-retrievers", "search", report["index"], "your question"]
    command += [] if model == MINI else ["--model", model]
    results().print(
        "{passages} passages of {files} files in {index} ({changed} new or changed, {removed} "
        "removed).".format_map(report),
        f"\nAsk it:  {shlex.join(command)}",
        sep="",
        soft_wrap=True,
    )
