"""``m3-retrievers serve``: a model, and indexes if some are named, behind HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from m3_retrievers.checks import require_package
from m3_retrievers.cli.bundled import bundled_model
from m3_retrievers.cli.console import messages, warnings_as_messages
from m3_retrievers.cli.destination import is_durable
from m3_retrievers.cli.home import retriever_in
from m3_retrievers.encoder.encoder import M3Encoder
from m3_retrievers.encoder.mini import MINI
from m3_retrievers.errors import InputError
from m3_retrievers.index.opening import parse_address, shown_address
from m3_retrievers.retrieval.precisions import difference

if TYPE_CHECKING:
    from m3_retrievers.serve import Served


def run(
    indexes: Sequence[str],
    *,
    models: Sequence[str],
    host: str,
    port: int,
    api_key: str | None,
    batch_tokens: int | None,
    queue: int,
    timeout: float,
) -> None:
    """Serve until it is stopped."""
    for package in ("starlette", "uvicorn"):
        require_package(package, module=package, extra="serve", purpose="A server")
    from m3_retrievers.serve.limits import Limits
    from m3_retrievers.serve.running import is_local
    from m3_retrievers.serve.running import run as serve

    limits = Limits(
        batch_tokens=batch_tokens, queue=queue, max_texts=min(512, queue), timeout=timeout
    )
    names = _models(indexes, models)
    with ExitStack() as opened:
        with warnings_as_messages():  # not while it serves: they would be gathered until its end
            encoders = {name: M3Encoder.from_pretrained(name) for name in dict.fromkeys(names)}
            served = [
                _opened(index, name, encoders[name], opened)
                for index, name in zip(indexes, names, strict=False)
            ]
        where = f"http://{host}:{port}"
        for one in served:
            what = f"{one.retriever.encoder.name} and {len(one.retriever)} passages of {one.name}"
            apart = difference(one.retriever.index, one.retriever.encoder)
            what += "" if apart is None else f", {apart}"
            messages.print(f"Serving {what}.", soft_wrap=True)
        what = "The playground is at" if served else f"Serving {names[0]} at"
        messages.print(f"{what} {where} (Ctrl-C stops it).", soft_wrap=True)
        if api_key is None and not is_local(host):
            messages.print(
                "Whoever reaches this address may use it: give --api-key, or "
                "M3_RETRIEVERS_API_KEY.",
                style="yellow",
                soft_wrap=True,
            )
        encoder = encoders[names[0]]
        serve(encoder, served, host=host, port=port, limits=limits, api_key=api_key)


def _models(indexes: Sequence[str], models: Sequence[str]) -> list[str]:
    """Return the model of each index, or the one to serve alone; one given counts for all."""
    if not indexes and len(models) < 2:
        return [*models] or [MINI]
    if len(models) not in (0, 1, len(indexes)):
        raise InputError(
            f"--model expects one for all indexes, or one for each of {len(indexes)} in their "
            f"order, got {len(models)}."
        )
    if not models:
        return [bundled_model(one, ["serve", *map(shown_address, indexes)]) for one in indexes]
    return [*models] if len(models) > 1 else [*models] * len(indexes)


def _opened(index: str, model: str, encoder: M3Encoder, opened: ExitStack) -> Served:
    from m3_retrievers.serve.state import Served

    retriever = opened.enter_context(retriever_in(index, encoder))
    return Served(shown_address(index), retriever, code_of(index, model))


def code_of(index: str, model: str) -> str:
    """Return Python that makes the retriever over an index, without a password of its address."""
    home, shown = parse_address(index), shown_address(index)
    imports = "from m3_retrievers import HybridRetriever, HybridWeights, M3Encoder, Recall\n"
    made = f"load({shown!r}, encoder)"
    if home.engine != "sqlite":
        imports += "from m3_retrievers.index import open as open_index\n"
        made = f"open(open_index({shown!r}, create=False), encoder)"
    elif home.path is not None and is_durable(home.path):
        made = f"open({home.target!r}, encoder)"
    return (
        f"{imports}\nencoder = M3Encoder.from_pretrained({model!r})\n"
        f"retriever = HybridRetriever.{made}"
    )
