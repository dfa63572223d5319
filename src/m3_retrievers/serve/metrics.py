"""What a server counts, as Prometheus reads it."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

_HELP = {
    "requests_total": ("counter", "Requests, by path and status."),
    "request_seconds": ("histogram", "Time until an answer, by path."),
    "batches_total": ("counter", "Passes that texts were encoded in."),
    "batch_texts_total": ("counter", "Texts that were encoded."),
    "batch_tokens_total": ("counter", "Their tokens, without padding."),
    "batch_requests_total": ("counter", "Requests that had a part in a pass, summed over passes."),
    "cancelled_total": ("counter", "Requests whose client went away before the answer."),
    "refused_total": ("counter", "Requests that found no room in the queue."),
    "queue_texts": ("gauge", "Texts that wait."),
}


class Metrics:
    """Counters of one server; touched by its event loop alone."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.queue_texts = 0
        self._requests: Counter[tuple[str, int]] = Counter()
        self._seconds: dict[str, list[int]] = defaultdict(lambda: [0] * (len(_SECONDS) + 1))
        self._sums: Counter[str] = Counter()

    def request(self, path: str, status: int, seconds: float) -> None:
        """Count one request; path: of a route, so that their number is bounded."""
        self._requests[path, status] += 1
        self._seconds[path][bisect_left(_SECONDS, seconds)] += 1
        self._sums[path] += seconds  # type: ignore[assignment]

    def rendered(self) -> str:
        """Return all figures in Prometheus's text format."""
        lines: list[str] = []
        for name, (kind, text) in _HELP.items():
            full = f"m3_retrievers_{name}"
            lines += [f"# HELP {full} {text}", f"# TYPE {full} {kind}", *self._lines(name, full)]
        return "\n".join(lines) + "\n"

    def _lines(self, name: str, full: str) -> list[str]:
        if name == "requests_total":
            return [
                f'{full}{{path="{path}",status="{status}"}} {count}'
                for (path, status), count in sorted(self._requests.items())
            ]
        if name == "request_seconds":
            return [line for path in sorted(self._seconds) for line in self._histogram(full, path)]
        if name == "queue_texts":
            return [f"{full} {self.queue_texts}"]
        return [f"{full} {self.counts[name]}"]

    def _histogram(self, full: str, path: str) -> list[str]:
        lines, total = [], 0
        for bound, count in zip((*_SECONDS, "+Inf"), self._seconds[path], strict=True):
            total += count
            lines.append(f'{full}_bucket{{path="{path}",le="{bound}"}} {total}')
        sums = f'{full}_sum{{path="{path}"}} {self._sums[path]:.6f}'
        return [*lines, sums, f'{full}_count{{path="{path}"}} {total}']
