"""An HTML document of its own, which notebooks show in a frame."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

_HEIGHT = 780


@dataclass(frozen=True, slots=True, eq=False)
class Page:
    """A whole HTML document; written to a file, ``html`` opens in a browser.

    A notebook shows it in a frame without an origin: its scripts run, and reach nothing of the
    notebook.
    """

    title: str
    html: str

    def __repr__(self) -> str:
        return f"Page({self.title!r}, {len(self.html):,} characters of HTML)"

    def _repr_html_(self) -> str:
        return (
            f'<iframe title="{escape(self.title, quote=True)}" sandbox="allow-scripts" '
            f'allow="clipboard-write" style="width:100%;height:{_HEIGHT}px;'
            f'border:1px solid rgba(128,128,128,.4);border-radius:8px" '
            f'srcdoc="{escape(self.html, quote=True)}"></iframe>'
        )
