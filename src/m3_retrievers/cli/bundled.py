"""Which model an index may name and have loaded without anybody asking for it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from m3_retrievers.cli.home import built_by
from m3_retrievers.encoder.mini import NAMES
from m3_retrievers.errors import InputError
from m3_retrievers.index.opening import shown_address


def bundled_model(index: str, command: Sequence[str]) -> str:
    """Return the model that built an index, where it may be loaded without being asked for.

    An index may come from anyone, and its model's name is a path to load or a repository to
    download: whoever searches decides on that. command: what was typed, for the message.
    """
    name = str(built_by(index).get("name", ""))
    if name in NAMES:  # of models that come with this package or by pip
        return name
    built = f"was built by the model {name!r}" if name else "names no model"
    again = ["m3-retrievers", *command, "--model", name or "MODEL"]
    raise InputError(
        f"The index in {shown_address(index)!r} {built}, and a {command[0]} loads, or downloads, "
        "no model just because an index names it. If you trust that model, type: "
        f"{shlex.join(again)}"
    )
