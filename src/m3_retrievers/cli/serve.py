"""``m3-retrievers serve``: a model, and an index if one is named, behind HTTP."""

from __future__ import annotations

from contextlib import ExitStack

from m3_retrievers.checks import require_package
from m3_retrievers.cli.bundled import bundled_model
from m3_retrievers.cli.console import messages, warnings_as_messages
from m3_retrievers.cli.home import retriever_in
from m3_retrievers.encoder.encoder import M3Encoder
from m3_retrievers.encoder.mini import MINI
from m3_retrievers.index.opening import shown_address


def run(
    index: str | None,
    *,
    model: str | None,
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
    shown = None if index is None else shown_address(index)
    name = model or (MINI if index is None else bundled_model(index, ["serve", str(shown)]))
    with ExitStack() as opened:
        with warnings_as_messages():  # not while it serves: they would be gathered until its end
            encoder = M3Encoder.from_pretrained(name)
            retriever = None
            if index is not None:
                retriever = opened.enter_context(retriever_in(index, encoder))
        what = name if retriever is None else f"{name} and {len(retriever)} passages of {shown}"
        messages.print(f"Serving {what} at http://{host}:{port} (Ctrl-C stops it).", soft_wrap=True)
        if api_key is None and not is_local(host):
            messages.print(
                "Whoever reaches this address may use it: give --api-key, or "
                "M3_RETRIEVERS_API_KEY.",
                style="yellow",
                soft_wrap=True,
            )
        serve(encoder, retriever, host=host, port=port, limits=limits, api_key=api_key)
