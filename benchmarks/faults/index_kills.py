"""LangChain's ``index()`` and the command line's ``index``, killed anywhere and run again.

``index()`` with a record manager in a file and a store opened on a durable file; each round
changes the documents, kills the run at a random moment, runs it again, and compares. The
command line's ``index`` brings the index of a changed folder up to date, into a durable file
and into a folder; after each kill the index must open, with whole passages of either state.
The model is a random tiny one, in the child's memory before the fork.

    python benchmarks/faults/index_kills.py --model FOLDER
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from common import RESULTS, machine, write_result
from langchain_core.documents import Document
from langchain_core.indexing import InMemoryRecordManager, index

from m3_retrievers import M3Encoder
from m3_retrievers.cli import index as command
from m3_retrievers.cli.destination import load
from m3_retrievers.langchain import M3VectorStore

_WORDS = ["river", "bridge", "library", "archive", "council", "harvest", "winter", "letter"]


def killed(work: Callable[[], Any], *, after: float) -> bool:
    """Do work in a child that is killed after so many seconds; whether that was before its end."""
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        work()
        os._exit(0)
    time.sleep(after)
    os.kill(child, signal.SIGKILL)
    status: int = os.waitpid(child, 0)[1]
    return status != 0


def sentence(rng: random.Random) -> str:
    return " ".join(rng.choices(_WORDS, k=rng.randint(4, 20)))


# LangChain


class FileRecordManager(InMemoryRecordManager):
    """LangChain's own record manager, its records in SQLite, as its SQLRecordManager has them."""

    def __init__(self, path: Path) -> None:
        import sqlite3

        super().__init__("faults")
        self._rows = sqlite3.connect(path, isolation_level=None)
        self._rows.execute("PRAGMA journal_mode = WAL")
        self._rows.execute(
            "CREATE TABLE IF NOT EXISTS seen (key TEXT PRIMARY KEY, source TEXT, at REAL)"
        )
        for key, source, at in self._rows.execute("SELECT * FROM seen"):
            self.records[key] = {"group_id": source, "updated_at": at}

    def update(self, keys: Any, *, group_ids: Any = None, time_at_least: Any = None) -> None:
        super().update(keys, group_ids=group_ids, time_at_least=time_at_least)
        rows = [(k, self.records[k]["group_id"], self.records[k]["updated_at"]) for k in keys]
        self._rows.executemany("INSERT OR REPLACE INTO seen VALUES (?, ?, ?)", rows)

    def delete_keys(self, keys: Any) -> None:
        super().delete_keys(keys)
        self._rows.executemany("DELETE FROM seen WHERE key = ?", [(key,) for key in keys])


def run_index(folder: Path, documents: list[Document], encoder: M3Encoder) -> None:
    store = M3VectorStore.open(folder / "store.index", encoder)
    index(
        documents,
        FileRecordManager(folder / "records.db"),
        store,
        cleanup="full",
        source_id_key="source",
        batch_size=4,
        key_encoder="sha256",
    )


def langchain(encoder: M3Encoder, rounds: int, longest: float) -> dict[str, Any]:
    folder, rng, ended = Path(tempfile.mkdtemp()), random.Random(0), Counter[str]()
    documents = [Document(sentence(rng), metadata={"source": str(n)}) for n in range(30)]
    for _ in range(rounds):
        for at in rng.sample(range(30), 8):
            documents[at] = Document(sentence(rng), metadata={"source": str(at)})
        given = documents[: rng.randint(20, 30)]
        died = killed(
            lambda given=given: run_index(folder, given, encoder), after=rng.random() * longest
        )
        ended["killed" if died else "had ended"] += 1
        run_index(folder, given, encoder)
        store = M3VectorStore.open(folder / "store.index", encoder)
        found = store.hybrid.get(store.hybrid.index.ids)
        kept = sorted((record.text, record.metadata["source"]) for record in found)
        assert kept == sorted((one.page_content, one.metadata["source"]) for one in given)
        store.hybrid.index.close()
    return {"rounds": rounds, **ended, "rounds_with_other_documents": 0}


# The command line


def run_command(folder: Path, out: Path) -> None:
    command.run(
        folder, out=out, home=None, model="tiny", options=command.Options(chunk=16), as_json=True
    )


def command_line(encoder: M3Encoder, out: Path, rounds: int, longest: float) -> dict[str, Any]:
    folder, rng, ended = Path(tempfile.mkdtemp()), random.Random(1), Counter[str]()
    texts: dict[str, str] = {}
    quiet = os.open(os.devnull, os.O_WRONLY)
    for _ in range(rounds):
        before = set(texts.values())
        for name in rng.sample([f"{n}.txt" for n in range(12)], 5):
            texts[name] = "\n\n".join(sentence(rng) for _ in range(6))
            (folder / name).write_text(texts[name])
        died = killed(lambda: run_command(folder, out), after=rng.random() * longest)
        ended["killed" if died else "had ended"] += 1
        if out.exists() and (out.is_file() or (out / "manifest.json").exists()):
            retriever = load(out, encoder) if out.is_dir() or made(out) else None
            for record in retriever.get(retriever.index.ids) if retriever else ():
                assert any(record.text in text for text in (*before, *texts.values()))
            close(retriever)
        kept = os.dup(1), os.dup(2)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        run_command(folder, out)
        os.dup2(kept[0], 1)
        os.dup2(kept[1], 2)
        retriever = load(out, encoder)
        found = retriever.get(retriever.index.ids)
        assert {record.metadata["source"] for record in found} == set(texts)
        for name, text in texts.items():
            passages = [record.text for record in found if record.metadata["source"] == name]
            assert all(passage in text for passage in passages)
        fresh = encoder.encode_documents([record.text for record in found], outputs=["dense"])
        stored = retriever.vectors([record.id for record in found], outputs=["dense"])
        assert abs(fresh.require("dense") - stored.require("dense")).max() < 1e-5
        close(retriever)
    return {"rounds": rounds, **ended, "rounds_with_other_passages": 0}


def made(path: Path) -> bool:
    from m3_retrievers.index.durable.opening import is_made

    return is_made(path)


def close(retriever: Any) -> None:
    if retriever is not None and hasattr(retriever.index, "close"):
        retriever.index.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="a small model's folder")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--longest", type=float, default=1.0, help="seconds before a kill")
    options = parser.parse_args()
    encoder = M3Encoder.from_pretrained(options.model, device="cpu", truncation="warn")
    encoder.encode_documents(["warm"])
    M3Encoder.from_pretrained = lambda *_, **__: encoder  # type: ignore[method-assign]
    start, folder = time.perf_counter(), Path(tempfile.mkdtemp())
    rounds, longest = options.rounds, options.longest
    result = {
        "langchain index()": langchain(encoder, rounds, longest),
        "index --out FILE.index": command_line(
            encoder, folder / "a.index", rounds // 2, longest / 2
        ),
        "index --out FOLDER": command_line(encoder, folder / "folder", rounds // 2, longest / 2),
        "seconds": round(time.perf_counter() - start, 1),
        "machine": machine(threads=1),
    }
    write_result(RESULTS / "faults_index_kills.json", result)


if __name__ == "__main__":
    main()
