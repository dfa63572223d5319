"""`make docs`: every public name has its place in the reference, and nothing warns."""

import importlib
import sys
from pathlib import Path

import pytest

from reference_pages import ROOMS, write

SCRIPT = Path(__file__).with_name("reference_pages.py")


def test_every_public_name_has_a_docstring():
    for room in map(importlib.import_module, ROOMS):
        for name in getattr(room, "__all__", ()):
            documented = getattr(room, name).__doc__ or name.startswith("__")
            assert documented, f"{room.__name__}.{name}"


@pytest.mark.slow
def test_the_pages_hold_every_public_name_and_no_path_of_this_machine(tmp_path):
    write(tmp_path)
    for name in ROOMS:
        page = (tmp_path / f"{name.replace('.', '/')}.html").read_text("utf-8")
        for public in getattr(importlib.import_module(name), "__all__", ()):
            assert f'id="{public}"' in page, f"{name}.{public}"
        for place in (Path.home(), SCRIPT.parent.parent, sys.prefix):
            assert str(place) not in page, name
