"""Runs notebooks from a clean kernel without a network.

``python tests/notebooks.py [NAME …]`` runs notebooks/*.ipynb and keeps what they show.
"""

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbformat import NotebookNode

FOLDER = Path(__file__).parent.parent / "notebooks"
# urllib3 opens a socket as it is imported, to see whether there is IPv6
_NO_NETWORK = (
    "import urllib3, pytest_socket; pytest_socket.disable_socket(allow_unix_socket=True); "
    "del urllib3, pytest_socket"
)
_NUMBER = re.compile(r"[-+]?\d+(?:[.,]\d+)*(?:e[-+]?\d+)?")


def paths() -> list[Path]:
    return sorted(FOLDER.glob("*.ipynb"))


def read(path: Path) -> NotebookNode:
    notebook: NotebookNode = nbformat.read(path, as_version=4)
    return notebook


def run(path: Path, *, seconds: int = 120) -> NotebookNode:
    """Return the notebook as it comes out of a clean kernel that works in an empty folder.

    Raises CellExecutionError for the first cell that fails, CellTimeoutError for a slow one.
    """
    notebook = read(path)
    # the kernel is spoken to through unix sockets, whose paths must be short
    with tempfile.TemporaryDirectory(prefix="nb") as folder:
        work = Path(folder) / "work"
        work.mkdir()
        # a person's own start-up files and history are not a clean kernel's
        environment = {**os.environ, "IPYTHONDIR": folder}
        client = NotebookClient(
            notebook,
            km=AsyncKernelManager(kernel_name="python3", transport="ipc", ip=f"{folder}/kernel"),
            timeout=seconds,
            record_timing=False,
            extra_arguments=[f"--IPKernelApp.exec_lines={_NO_NETWORK}"],
        )
        client.execute(cwd=str(work), env=environment, cleanup_kc=True)
    return tidy(notebook)


def tidy(notebook: NotebookNode) -> NotebookNode:
    """Return the notebook without what changes from run to run and says nothing."""
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02d}"
        cell.metadata = NotebookNode()
        if cell.cell_type == "code":
            cell.outputs = _joined(cell.outputs)
    notebook.metadata = NotebookNode(
        kernelspec={"display_name": "Python 3", "language": "python", "name": "python3"},
        language_info={"name": "python"},
    )
    return notebook


def _joined(outputs: list[Any]) -> list[Any]:
    """Return outputs in which neighbouring prints are one: how they part is a matter of timing."""
    joined: list[Any] = []
    for output in outputs:
        last = joined[-1] if joined else None
        if last and last.output_type == output.output_type == "stream" and last.name == output.name:
            last.text += output.text
        else:
            joined.append(output)
    return joined


def shown(notebook: NotebookNode) -> list[list[tuple[str, str]]]:
    """Return what each code cell shows: kinds of output, and texts with their numbers masked."""
    return [list(_shown(cell.outputs)) for cell in notebook.cells if cell.cell_type == "code"]


def _shown(outputs: list[Any]) -> Iterator[tuple[str, str]]:
    for output in outputs:
        if output.output_type == "stream":
            yield output.name, _NUMBER.sub("#", output.text)
        elif output.output_type == "error":
            yield "error", str(output.evalue)
        else:
            alone = list(output.data) == ["text/plain"]
            for kind, content in sorted(output.data.items()):
                yield kind, _NUMBER.sub("#", content) if alone else ""


def main() -> None:
    wanted = sys.argv[1:]
    for path in paths():
        if not wanted or any(name in path.name for name in wanted):
            nbformat.write(run(path), path)
            sys.stdout.write(f"{path.name}\n")


if __name__ == "__main__":
    main()
