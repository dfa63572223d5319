"""``m3-retrievers copy``: an index from one home into another."""

from __future__ import annotations

from m3_retrievers.cli.console import results, write_json
from m3_retrievers.index.copying import copy
from m3_retrievers.index.opening import shown_address


def run(source: str, target: str, *, as_json: bool) -> None:
    """Copy what the target does not have yet, and say how much that was."""
    copied = copy(source, target, show_progress=True)
    report = {"source": shown_address(source), "target": shown_address(target), "copied": copied}
    if as_json:
        write_json(report)
        return
    results().print(
        f"{copied} documents copied from {report['source']} to {report['target']}.",
        soft_wrap=True,
    )
