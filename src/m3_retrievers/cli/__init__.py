"""The command ``m3-retrievers``: an index of a folder, searched; models trained and measured."""

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; what this package refuses ends as one message, not a traceback.

    arguments: those after the command's name; None takes the process's own.
    """
    from m3_retrievers.checks import require_package
    from m3_retrievers.errors import M3Error, MissingExtraError

    try:
        for package in ("typer", "rich"):
            require_package(package, module=package, extra="cli", purpose="The command line")
    except MissingExtraError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(1)
    from m3_retrievers.cli.app import app
    from m3_retrievers.cli.console import say

    try:
        app(args=arguments, prog_name="m3-retrievers")
    # a disk that is full or read-only, a file that is not there: nobody's mistake in the code
    except (M3Error, OSError) as error:
        say("Error", str(error), style="bold red")
        sys.exit(1)
