"""A server under load: many clients at once, mixed lengths, a fifth of them leaving early.

The server runs in a process of its own, with m3-mini, and keeps nothing of what it computed:
every request costs a pass. Clients ask one after the other as fast as they are answered. Each
answer is compared with the vectors that this process computes of each text alone::

    python benchmarks/serve_load.py --seconds 600

Three rounds: one client, 8 clients, 64 clients of whom a fifth of the requests is cancelled at
a random moment. Written down: latencies, answers a second, statuses, the largest difference
from the sequential vectors, and the server's memory through the last round.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch
from common import RESULTS, machine, passages, write_result

from m3_retrievers import M3Encoder

OUT = RESULTS / "serve_load.json"
# questions, one passage, several passages: what a RAG application sends
SHARES = {"question": 0.6, "passage": 0.25, "passages": 0.15}


@dataclass
class Round:
    """What one round of clients saw."""

    clients: int
    latencies: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    cancelled: int = 0
    largest_difference: float = 0.0
    memory: list[tuple[float, int]] = field(default_factory=list)

    def record(self, seconds: float) -> dict[str, Any]:
        """Return the round as JSON."""
        points = (
            {f"p{q}": float(np.percentile(self.latencies, q)) for q in (50, 95, 99, 100)}
            if self.latencies
            else {}
        )
        return {
            "clients": self.clients,
            "seconds": seconds,
            "answers": len(self.latencies),
            "answers_a_second": len(self.latencies) / seconds,
            "latency_seconds": points,
            "statuses": dict(self.statuses),
            "cancelled": self.cancelled,
            "largest_difference": self.largest_difference,
            "memory_mb": [[round(at), kilobytes // 1024] for at, kilobytes in self.memory],
        }


class Texts:
    """Questions and passages, with the vectors of each, computed alone."""

    def __init__(
        self, encoder: M3Encoder, questions: Sequence[str], passages: Sequence[str]
    ) -> None:
        self.questions, self.passages = list(questions), list(passages)
        self.expected = {
            text: encoder.encode_documents([text], outputs=("dense",)).dense[0]
            for text in (*questions, *passages)
        }

    def draw(self, rng: random.Random) -> list[str]:
        """Return the texts of one request."""
        [kind] = rng.choices(list(SHARES), SHARES.values())
        if kind == "question":
            return [rng.choice(self.questions)]
        return rng.choices(self.passages, k=1 if kind == "passage" else rng.randint(2, 6))


async def load(
    url: str,
    texts: Texts,
    *,
    clients: int,
    seconds: float,
    cancelled: float = 0.0,
    pid: int | None = None,
) -> Round:
    """Return what so many clients saw in so many seconds; pid: of the server, for its memory."""
    seen = Round(clients)
    end = time.monotonic() + seconds
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=clients)
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as http:
        asking = [
            asyncio.create_task(_ask(http, texts, seen, end, cancelled, random.Random(seed)))
            for seed in range(clients)
        ]
        start = time.monotonic()
        while not all(task.done() for task in asking):
            if pid is not None:
                seen.memory.append((time.monotonic() - start, memory_of(pid)))
            await asyncio.wait(asking, timeout=min(5.0, seconds / 4))
        await asyncio.gather(*asking)
    return seen


async def _ask(
    http: httpx.AsyncClient,
    texts: Texts,
    seen: Round,
    end: float,
    cancelled: float,
    rng: random.Random,
) -> None:
    while time.monotonic() < end:
        drawn = texts.draw(rng)
        start = time.perf_counter()
        asked = http.post("/v1/embeddings", json={"input": drawn, "model": "m"})
        if rng.random() < cancelled:
            wait = rng.uniform(0, 2 * (np.median(seen.latencies) if seen.latencies else 0.1))
            try:
                await asyncio.wait_for(asked, wait)
            except TimeoutError:
                seen.cancelled += 1
            continue
        answer = await asked
        seen.statuses[str(answer.status_code)] += 1
        if answer.status_code != 200:
            continue
        seen.latencies.append(time.perf_counter() - start)
        for one, text in zip(answer.json()["data"], drawn, strict=True):
            difference = np.abs(np.array(one["embedding"]) - texts.expected[text]).max()
            seen.largest_difference = max(seen.largest_difference, float(difference))


def reference(count: int) -> tuple[list[str], list[str]]:
    """Return so many questions and passages out of Python's language reference.

    The passages have from 100 to 1,600 characters, and are spread over these lengths.
    """
    from pydoc_data.topics import topics

    rng = random.Random(0)
    names = sorted(topics)
    questions = [f"how do I use {name.replace('-', ' ')} in Python?" for name in names]
    cut = [
        next(passages(topics[name].partition("\n\n")[2], size=rng.randint(100, 1600)), "").strip()
        for name in names
    ]
    found = [text for text in cut if len(text) >= 100]
    return rng.sample(questions, min(count, len(questions))), rng.sample(
        found, min(count, len(found))
    )


def memory_of(pid: int) -> int:
    """Return a process's resident memory in kB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


def serve(port: int, model: str) -> None:
    """Be the server."""
    from m3_retrievers.serve import Limits
    from m3_retrievers.serve.running import run

    run(M3Encoder.from_pretrained(model, device="cpu", keep=None), port=port, limits=Limits())


def wait_until_up(url: str) -> dict[str, Any]:
    for _ in range(600):
        try:
            return dict(httpx.get(f"{url}/health").json())
        except httpx.TransportError:
            time.sleep(0.2)
    raise SystemExit("the server did not start")


def main() -> None:
    options = _options()
    if options.serve:
        serve(options.serve, options.model)
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, __file__, "--serve", str(port), "--model", options.model]
    server = subprocess.Popen(command)
    url = f"http://127.0.0.1:{port}"
    try:
        about = wait_until_up(url)
        encoder = M3Encoder.from_pretrained(options.model, device="cpu", keep=None)
        texts = Texts(encoder, *reference(options.texts))
        rounds = []
        for clients, seconds, cancelled in (
            (1, options.seconds / 10, 0.0),
            (8, options.seconds / 5, 0.0),
            (64, options.seconds, 0.2),
        ):
            start = time.monotonic()
            seen = asyncio.run(
                load(
                    url, texts, clients=clients, seconds=seconds, cancelled=cancelled,
                    pid=server.pid,
                )
            )  # fmt: skip
            rounds.append(seen.record(time.monotonic() - start))
            print({key: rounds[-1][key] for key in rounds[-1] if key != "memory_mb"})
        metrics = httpx.get(f"{url}/metrics").text.splitlines()
        counts = [line for line in metrics if line.startswith("m3_retrievers_") and "{" not in line]
        result = {
            "machine": machine(threads=torch.get_num_threads()),
            "model": about["model"]["name"],
            "rounds": rounds,
            "metrics": counts,
        }
        write_result(options.out, result)
    finally:
        server.terminate()
        server.wait()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="m3-mini")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--texts", type=int, default=200)
    parser.add_argument("--serve", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=OUT)
    return parser.parse_args()


if __name__ == "__main__":
    main()
