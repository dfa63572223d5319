"""Small servers on loopback that answer as vLLM and text-embeddings-inference do.

They compute with transformers and the checkpoint's heads, and share no code with the package.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from transformers import AutoModel, AutoTokenizer

Reply = tuple[int, dict[str, str], bytes]


@dataclass
class Seen:
    """What a server was asked: path, JSON, headers."""

    path: str
    body: Any
    headers: dict[str, str]


@dataclass
class Server:
    """A running server. before: looks at each request, and may answer in the server's place."""

    url: str
    seen: list[Seen] = field(default_factory=list)
    before: Callable[[Seen], Reply | None] = lambda _: None
    change: Callable[[Any], Any] = lambda answer: answer
    most_at_once: int = 0


def as_json(value: Any, status: int = 200, **headers: str) -> Reply:
    return status, {"content-type": "application/json", **headers}, json.dumps(value).encode()


@contextmanager
def running(answer: Callable[[Seen], Any]) -> Iterator[Server]:
    """Serve JSON answers on a free port of 127.0.0.1 until the end of the block."""
    lock, under_way = threading.Lock(), [0]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 20

        def do_GET(self) -> None:
            self.reply(None)

        def do_POST(self) -> None:
            self.reply(json.loads(self.rfile.read(int(self.headers["content-length"]))))

        def reply(self, body: Any) -> None:
            seen = Seen(self.path, body, {k.lower(): v for k, v in self.headers.items()})
            with lock:
                server.seen.append(seen)
                under_way[0] += 1
                server.most_at_once = max(server.most_at_once, under_way[0])
            try:
                given = server.before(seen)
                status, headers, content = given or as_json(server.change(answer(seen)))
            finally:
                with lock:
                    under_way[0] -= 1
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:  # a client that went away
            pass

    listening = Quiet(("127.0.0.1", 0), Handler)
    server = Server(f"http://127.0.0.1:{listening.server_port}")
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        listening.shutdown()
        thread.join()
        listening.server_close()


class Weights:
    """A checkpoint's backbone and heads, one sequence at a time."""

    def __init__(self, folder: Path, dtype: torch.dtype = torch.float32) -> None:
        self.model = AutoModel.from_pretrained(folder, add_pooling_layer=False).eval().to(dtype)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.sparse = torch.load(folder / "sparse_linear.pt", weights_only=True)
        self.colbert = torch.load(folder / "colbert_linear.pt", weights_only=True)
        self.dtype = dtype

    def hidden(self, ids: list[int]) -> torch.Tensor:
        with torch.inference_mode():
            return self.model(input_ids=torch.tensor([ids])).last_hidden_state[0].float()

    def dense(self, ids: list[int]) -> list[float]:
        return functional.normalize(self.hidden(ids)[0], dim=-1).tolist()

    def sparse_of(self, ids: list[int]) -> list[float]:
        states = self.hidden(ids)[1:-1]
        linear = functional.linear(
            states, self.sparse["weight"].float(), self.sparse["bias"].float()
        )
        return torch.relu(linear)[:, 0].tolist()

    def colbert_of(self, ids: list[int], *, end: bool = False) -> list[list[float]]:
        states = self.hidden(ids)[1 : None if end else -1]
        linear = functional.linear(
            states, self.colbert["weight"].float(), self.colbert["bias"].float()
        )
        return functional.normalize(linear, dim=-1).tolist()


def vllm(weights: Weights, task: str) -> Callable[[Seen], Any]:
    """Answer as vLLM with one pooling task: embed, token_classify or token_embed."""

    def answer(seen: Seen) -> Any:
        if seen.path == "/v1/models":
            entry = {"id": "BAAI/bge-m3", "object": "model", "root": "BAAI/bge-m3"}
            return {"object": "list", "data": [{**entry, "max_model_len": 8192}]}
        rows = seen.body["input"]
        common = {"object": "list", "model": seen.body["model"], "usage": {"prompt_tokens": 1}}
        if task == "embed":
            assert seen.path == "/v1/embeddings"
            data = [
                {"object": "embedding", "index": place, "embedding": weights.dense(ids)}
                for place, ids in enumerate(rows)
            ]
        else:
            assert (seen.path, seen.body["task"]) == ("/pooling", task)
            of = weights.sparse_of if task == "token_classify" else weights.colbert_of
            data = [
                {"object": "pooling", "index": place, "data": of(ids)}
                for place, ids in enumerate(rows)
            ]
        return {"id": "pool-1", "created": 1, "data": data, **common}

    return answer


def tei(weights: Weights, *, most: int = 32) -> Callable[[Seen], Any]:
    """Answer as text-embeddings-inference, which turns ids into text and reads that again."""
    backend = weights.tokenizer.backend_tokenizer

    def ids_of(given: str | list[int]) -> list[int]:
        if isinstance(given, str):
            return backend.encode(given).ids
        text = backend.decode(given, skip_special_tokens=False)
        return backend.encode(text, add_special_tokens=False).ids

    def answer(seen: Seen) -> Any:
        if seen.path == "/info":
            return {
                "model_id": "BAAI/bge-m3",
                "model_sha": "5617a9f61b028005a4858fdac845db406aefb181",
                "model_dtype": "float32",
                "model_type": {"embedding": {"pooling": "cls"}},
                "max_input_length": 8192,
                "max_client_batch_size": most,
            }
        assert seen.path == "/embed_all"
        assert len(seen.body["inputs"]) <= most
        return [weights.hidden(ids_of(one)).tolist() for one in seen.body["inputs"]]

    return answer


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)
