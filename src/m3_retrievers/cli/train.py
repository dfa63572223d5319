"""``m3-retrievers train``: one run, from a TOML file to a model folder."""

from __future__ import annotations

from pathlib import Path

from m3_retrievers.cli.console import grid, results
from m3_retrievers.training.settings import read_settings
from m3_retrievers.training.trainer import LOG_FILE, train

_ROWS = 10
_SHOWN = (
    *("loss", "dense", "sparse", "colbert", "ensemble"),
    *("query_flops", "document_flops", "query_terms", "document_terms"),
)


def run(config: Path, *, fresh: bool) -> None:
    """Train, then show how the losses went and where the model lies."""
    settings = read_settings(config)
    trained = train(settings, resume=not fresh, show_progress=True)
    lines = [line for line in trained.log if "loss" in line]
    shown = lines[:: max(1, len(lines) // _ROWS)]
    names = [name for name in _SHOWN if name in lines[0]]
    encoder = "SpladeEncoder" if settings.objective == "splade" else "M3Encoder"
    table = grid("step", *names, title="Mean loss since the row before", numbers=["step", *names])
    for line in shown if shown[-1:] == lines[-1:] else [*shown, lines[-1]]:
        table.add_row(str(int(line["step"])), *(f"{line[name]:.4f}" for name in names))
    results().print(table)
    results().print(
        f"The model is in {trained.folder}; every logged step is in {trained.folder / LOG_FILE}.\n"
        f'Load it:  {encoder}.from_pretrained("{trained.folder}")',
        soft_wrap=True,
    )
