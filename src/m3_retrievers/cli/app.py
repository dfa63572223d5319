"""The commands about indexes and their options; each does its work in a file of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from m3_retrievers import __version__
from m3_retrievers.cli.console import warnings_as_messages
from m3_retrievers.cli.models import Json, Model, doctor, evaluate, mine, train

app = typer.Typer(
    help="BGE-M3 hybrid retrieval: dense, lexical and ColBERT scores in one index.",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


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
        list[str] | None,
        typer.Argument(
            help="Saved indexes, or addresses, to search and compare; none serves a model alone."
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="A hub id or a folder; may be left out for m3-mini. One for all, or one an index."
        ),
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
    """Serve a model, and indexes, to OpenAI's, TEI's and our clients, and as a page to try them."""
    from m3_retrievers.cli.serve import run

    run(
        index or [],
        models=model or [],
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


for _about_models in (train, mine, evaluate, doctor):
    app.command()(_about_models)
