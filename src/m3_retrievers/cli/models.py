"""The commands about models and their options; each does its work in a file of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from m3_retrievers.cli.console import warnings_as_messages

Model = Annotated[str, typer.Option(help="A hub id, a folder, m3-mini, m3-mini-multilingual.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def train(
    config: Annotated[Path, typer.Argument(help="A TOML file: model, data, out and the rest.")],
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Begin anew, even where a checkpoint is.")
    ] = False,
) -> None:
    """Train a model by the M3 recipe, or go on with a run that was stopped."""
    from m3_retrievers.cli.train import run

    with warnings_as_messages():
        run(config, fresh=fresh)


def mine(
    lines: Annotated[list[Path], typer.Argument(help="Training lines: .jsonl files or folders.")],
    out: Annotated[Path, typer.Option(help="The folder the new lines are written to.")],
    model: Model = "m3-mini",
    count: Annotated[int, typer.Option(help="Negatives a query.")] = 7,
    depth: Annotated[int, typer.Option(help="Choose from so many ranks.")] = 100,
    margin: Annotated[
        float, typer.Option(help="Leave out what scores above this share of the positive's score.")
    ] = 0.95,
    scores: Annotated[
        bool,
        typer.Option("--scores", help="Write hybrid scores beside the passages, as a teacher's."),
    ] = False,
    max_length: Annotated[int, typer.Option(help="Tokens of a passage.")] = 8192,
    bfloat16: Annotated[bool, typer.Option("--bfloat16", help="Encode in bfloat16.")] = False,
) -> None:
    """Find hard negatives for training lines by the hybrid score."""
    from m3_retrievers.cli.mine import run
    from m3_retrievers.training.negatives import MiningSettings

    with warnings_as_messages():
        run(
            lines,
            out=out,
            model=model,
            settings=MiningSettings(
                ranks=(1, depth), count=count, margin=margin, with_scores=scores
            ),
            max_length=max_length,
            precision="bf16" if bfloat16 else "fp32",
        )


def evaluate(
    folder: Annotated[
        Path,
        typer.Argument(
            help="A test collection in BEIR, MIRACL, MLDR or MKQA layout, or results kept by --out."
        ),
    ],
    model: Model = "m3-mini",
    split: Annotated[str, typer.Option(help="Which judgements.")] = "test",
    protocol: Annotated[
        str, typer.Option(help="union: legs exactly completed; paper: as BGE-M3's paper ran it.")
    ] = "union",
    mode: Annotated[
        list[str] | None, typer.Option(help="Only this mode, such as all or dense+sparse.")
    ] = None,
    measure: Annotated[
        list[str] | None, typer.Option(help="Another measure, as ir-measures writes it.")
    ] = None,
    max_length: Annotated[int, typer.Option(help="Tokens of a document.")] = 8192,
    weights: Annotated[
        tuple[float, float, float] | None,
        typer.Option(help="Dense, sparse, ColBERT, instead of the model's own."),
    ] = None,
    tune: Annotated[
        str | None,
        typer.Option(help="Search weights on this split; the split itself is halved first."),
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="Results of another run, to compare query by query.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where runs and results are kept.")] = None,
) -> None:
    """Measure every retrieval mode of a model on a test collection."""
    from m3_retrievers.cli.evaluate import run

    with warnings_as_messages():
        run(
            folder,
            model=model,
            split=split,
            protocol=protocol,  # type: ignore[arg-type]
            modes=mode or (),
            measures=measure or (),
            max_length=max_length,
            weights=weights,
            tune=tune,
            against=against,
            out=out,
        )


def doctor(
    model: Model = "m3-mini",
    speed: Annotated[bool, typer.Option("--speed", help="Measure each precision.")] = False,
    json: Json = False,
) -> None:
    """Print environment, model and arithmetic; exit with 1 if a check fails."""
    from m3_retrievers.cli.doctor import run

    with warnings_as_messages():
        sound = run(model, as_json=json, speed=speed)
    if not sound:
        raise typer.Exit(1)
