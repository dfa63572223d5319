"""The commands and their options; each does its work in a file of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from m3_retrievers import __version__
from m3_retrievers.cli.console import warnings_as_messages

app = typer.Typer(
    help="BGE-M3 hybrid retrieval: dense, lexical and ColBERT scores in one index.",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)

Model = Annotated[str, typer.Option(help="A hub id, a folder, m3-mini, m3-mini-multilingual.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"m3-retrievers {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Take what stands before a command; its help is the application's."""


@app.command()
def index(
    folder: Annotated[Path, typer.Argument(help="Your .md, .txt, .rst and .py files.")],
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="A folder for the index, or a file NAME.index, kept at every step."
        ),
    ] = Path("my-index"),
    home: Annotated[
        str | None,
        typer.Option(
            help="An engine for the index, in place of --out: qdrant:./data, milvus:./m.db, "
            "postgresql://…, qdrant:http://… or milvus:http://…"
        ),
    ] = None,
    model: Model = "m3-mini",
    chunk: Annotated[
        int | None,
        typer.Option(help="Tokens of a passage; 256, or what the model reads if that is less."),
    ] = None,
    overlap: Annotated[
        int, typer.Option(help="Tokens that a passage repeats of the one before.")
    ] = 0,
    truncation: Annotated[
        str,
        typer.Option(
            help="What happens to a passage that is too long all the same: warn (and cut), error, "
            "or windows, with which --chunk may be above what the model reads at once."
        ),
    ] = "warn",
    json: Json = False,
) -> None:
    """Index a folder, or bring its index up to date (with the same --chunk and --overlap).

    Ctrl-C keeps what is done; the same command goes on from there.
    """
    from m3_retrievers.cli.index import Options, run

    with warnings_as_messages():
        finished = run(
            folder,
            out=out,
            home=home,
            model=model,
            options=Options(chunk=chunk, overlap=overlap, truncation=truncation),  # type: ignore[arg-type]
            as_json=json,
        )
    if not finished:
        raise typer.Exit(130)


@app.command()
def search(
    index: Annotated[
        str, typer.Argument(help="An index: folder, file, or an address as --home takes it.")
    ],
    question: Annotated[list[str], typer.Argument(help="What you want to know.")],
    k: Annotated[int, typer.Option("-k", "--top-k", help="How many hits.")] = 5,
    filter: Annotated[
        str | None, typer.Option(help='Metadata filter as JSON: \'{"source": "guide.md"}\'.')
    ] = None,
    explain: Annotated[
        bool,
        typer.Option(help="Show each mode's rank and share, and what matched in the first hits."),
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(help="The model that built the index; may be left out for m3-mini."),
    ] = None,
    json: Json = False,
) -> None:
    """Ask an index a question."""
    from m3_retrievers.cli.search import run

    with warnings_as_messages():
        run(
            index,
            " ".join(question),
            k=k,
            filter=filter,
            explain=explain,
            model=model,
            as_json=json,
        )


@app.command()
def copy(
    source: Annotated[str, typer.Argument(help="A saved index's folder, or an address.")],
    target: Annotated[str, typer.Argument(help="An address as --home of index takes it.")],
    json: Json = False,
) -> None:
    """Copy an index into another home, without encoding again.

    What was stopped goes on with the same command.
    """
    from m3_retrievers.cli.copy import run

    with warnings_as_messages():
        run(source, target, as_json=json)


@app.command()
def serve(
    index: Annotated[
        str | None,
        typer.Argument(help="A saved index, or an address; without one, the model alone."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="A hub id or a model folder; may be left out for m3-mini."),
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen on.")] = 8080,
    api_key: Annotated[
        str | None,
        typer.Option(
            envvar="M3_RETRIEVERS_API_KEY",
            help="What clients have to send as a bearer token; in the environment nobody sees it.",
        ),
    ] = None,
    max_batch_tokens: Annotated[
        int | None,
        typer.Option(help="Tokens of texts that share a pass; what suits the device."),
    ] = None,
    queue: Annotated[
        int, typer.Option(help="Texts that may wait; more are told to come again.")
    ] = 1024,
    timeout: Annotated[
        float, typer.Option(help="Seconds after which an answer is given up.")
    ] = 60.0,
) -> None:
    """Serve a model, and an index if there is one, to clients of OpenAI, TEI and HttpEncoder."""
    from m3_retrievers.cli.serve import run

    run(
        index,
        model=model,
        host=host,
        port=port,
        api_key=api_key,
        batch_tokens=max_batch_tokens,
        queue=queue,
        timeout=timeout,
    )


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where the index is kept.")] = Path(".demo/index"),
    limit: Annotated[
        int | None, typer.Option(help="Index this many docstrings instead of all.")
    ] = None,
    model: Model = "m3-mini",
) -> None:
    """Answer questions from the documentation of Python's standard library."""
    from m3_retrievers.cli.demo import run

    with warnings_as_messages():
        run(out=out, limit=limit, model=model)


@app.command()
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


@app.command()
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


@app.command()
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


@app.command()
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
