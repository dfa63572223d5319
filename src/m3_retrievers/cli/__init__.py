"""The command ``m3-retrievers``: index, search, demo, doctor."""

import sys


def main() -> None:
    """Run the command line; what this package refuses ends as one message, not a traceback."""
    from m3_retrievers.checks import require_package
    from m3_retrievers.errors import M3Error, MissingExtraError

    try:
        for package in ("typer", "rich"):
            require_package(package, module=package, extra="cli", purpose="The command line")
    except MissingExtraError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(1)
    from m3_retrievers.cli.app import app
    from m3_retrievers.cli.console import messages

    try:
        app()
    except M3Error as error:
        messages.print(
            f"[bold red]Error:[/] {messages.escape(str(error))}", highlight=False, soft_wrap=True
        )
        sys.exit(1)
