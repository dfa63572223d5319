"""Which model an index may name and have loaded without anybody asking for it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from m3_retrievers.cli.destination import model_of
from m3_retrievers.encoder.mini import BACKBONE, MINI
from m3_retrievers.errors import InputError

# Models that come with this package or by pip; an index may name them without being trusted.
_BUNDLED = (MINI, BACKBONE)


def bundled_model(folder: Path, command: Sequence[str]) -> str:
    """Return the model that built an index, where it may be loaded without being asked for.

    An index may come from anyone, and its model's name is a path to load or a repository to
    download: whoever searches decides on that. command: what was typed, for the message.
    """
    name = str(model_of(folder).get("name", ""))
    if name in _BUNDLED:
        return name
    built = f"was built by the model {name!r}" if name else "names no model"
    again = ["m3-retrievers", *command, "--model", name or "MODEL"]
    raise InputError(
        f"The index in {str(folder)!r} {built}, and a {command[0]} loads, or downloads, no model "
        f"just because an index names it. If you trust that model, type: {shlex.join(again)}"
    )
