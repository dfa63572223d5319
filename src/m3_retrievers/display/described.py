"""A matplotlib Figure with a text alternative; imported only where matplotlib is there."""

from __future__ import annotations

from base64 import b64encode
from io import BytesIO
from typing import Any

from matplotlib.figure import Figure

from m3_retrievers.display.markup import printable, safe

# Pixels an inch, and of these those to a page's pixel: sharp on screens of twice the density.
_DPI, _DENSITY = 160, 2


class DescribedFigure(Figure):
    """A figure whose description a notebook gives to screen readers as the image's ``alt``."""

    def __init__(self, description: str, **options: Any) -> None:
        super().__init__(**options)
        self.description = printable(" ".join(description.split()))

    def _repr_mimebundle_(
        self,
        include: object = None,  # noqa: ARG002 (IPython's signature)
        exclude: object = None,  # noqa: ARG002
    ) -> tuple[dict[str, str], dict[str, dict[str, object]]]:
        """Return the figure as IPython shows it; HTML too, as only there every viewer has alt."""
        buffer = BytesIO()
        self.savefig(buffer, format="png", dpi=_DPI, bbox_inches="tight")
        png = buffer.getvalue()
        width = int.from_bytes(png[16:20], "big") // _DENSITY  # where PNG's header has it
        data = b64encode(png).decode("ascii")
        image = (
            f'<img alt="{safe(self.description)}" width="{width}" '
            f'style="max-width:100%;background:none" src="data:image/png;base64,{data}">'
        )
        shown = {"text/plain": self.description, "text/html": image, "image/png": data}
        return shown, {"image/png": {"alt": self.description, "width": width}}
