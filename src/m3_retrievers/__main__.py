"""``python -m m3_retrievers``: the command line."""

from m3_retrievers.cli import main

main()
