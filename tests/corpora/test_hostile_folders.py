"""Folders as attackers, bad disks and other systems leave them."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from m3_retrievers.corpora.folder import read_folder

LINKS = "that are links, which are not followed"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "a.md").write_text("Text.")
    return docs


def sources(folder: Path) -> list[str]:
    return [record.metadata["source"] for record in read_folder(folder).passages]


def test_links_lead_nowhere_and_are_counted(folder, tmp_path):
    (tmp_path / "secret.md").write_text("secret")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "more.md").write_text("secret")
    (folder / "file.md").symlink_to(tmp_path / "secret.md")
    (folder / "folder").symlink_to(tmp_path / "secrets")
    (folder / "broken.md").symlink_to(tmp_path / "nowhere")
    found = read_folder(folder)
    assert [record.text for record in found.passages] == ["Text."]
    assert found.left_out == {LINKS: 3}


def test_a_folder_that_is_given_as_a_link_is_read(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    assert sources(tmp_path / "link") == ["a.md"]


def test_pipes_are_not_waited_for(folder):
    os.mkfifo(folder / "pipe.md")
    assert read_folder(folder).left_out == {"of another kind": 1}


@pytest.mark.parametrize(
    ("becomes", "reason"),
    [
        ("nothing", "that vanished while the folder was read"),
        ("a link", LINKS),
        ("a folder", "of another kind"),
        ("a pipe", "of another kind"),
    ],
)
def test_a_file_that_changes_after_it_was_listed_is_left_out(
    folder, tmp_path, monkeypatch, becomes, reason
):
    (tmp_path / "secret.md").write_text("secret")
    (folder / "b.md").write_text("Text.")
    opened = os.open

    def swap(path, *arguments, **options):
        if str(path).endswith("b.md"):
            Path(path).unlink()
            {
                "nothing": lambda: None,
                "a link": lambda: Path(path).symlink_to(tmp_path / "secret.md"),
                "a folder": Path(path).mkdir,
                "a pipe": lambda: os.mkfifo(path),
            }[becomes]()
        return opened(path, *arguments, **options)

    monkeypatch.setattr(os, "open", swap)
    found = read_folder(folder)
    assert [record.metadata["source"] for record in found.passages] == ["a.md"]
    assert found.left_out == {reason: 1}


def test_what_may_not_be_read_is_counted(folder, monkeypatch):
    (folder / "closed.md").write_text("closed")
    (folder / "closed").mkdir()
    # root, as whom tests may run, may read everything: the system's answer is made up
    opened, listed = os.open, os.scandir

    def refuse(function):
        def refusing(path, *arguments, **options):
            if "closed" in str(path):
                raise PermissionError(13, "Permission denied", str(path))
            return function(path, *arguments, **options)

        return refusing

    monkeypatch.setattr(os, "open", refuse(opened))
    monkeypatch.setattr(os, "scandir", refuse(listed))
    found = read_folder(folder)
    assert [record.metadata["source"] for record in found.passages] == ["a.md"]
    assert found.left_out == {"that cannot be read": 2}


def test_names_of_any_bytes_are_read(folder):
    odd = [b"line\nfeed.md", b"\x1b[31m.md", b"\xff.md", "ä😀.md".encode()]
    for name in odd:
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_text("Text.")
    assert set(sources(folder)) == {"a.md", *map(os.fsdecode, odd)}


@pytest.fixture
def deep() -> Iterator[Path]:
    """A folder as deep as a path's 4096 bytes go, and deeper than Python's stack.

    It stands apart from pytest's own folders. Those are cleared by recursion, and one that a
    killed run left behind would end some later run with a RecursionError.
    """
    folder = Path(tempfile.mkdtemp(prefix="deep"))
    try:
        (folder / "a.md").write_text("Text.")
        place = os.open(folder, os.O_RDONLY)
        for _ in range(1_900):
            os.mkdir("d", dir_fd=place)
            inner = os.open("d", os.O_RDONLY, dir_fd=place)
            os.close(place)
            place = inner
        file = os.open("deep.md", os.O_WRONLY | os.O_CREAT, dir_fd=place)
        os.write(file, b"Deep.")
        os.close(file)
        os.close(place)
        yield folder
    finally:
        subprocess.run(["rm", "-rf", str(folder)], check=True)


@pytest.mark.slow
def test_no_depth_is_too_deep(deep):
    assert sorted(record.text for record in read_folder(deep).passages) == ["Deep.", "Text."]


def test_a_byte_order_mark_is_no_text(folder):
    (folder / "b.py").write_bytes(b"\xef\xbb\xbfdef f(): ...\n")
    [_, passage] = read_folder(folder).passages
    assert (passage.text, passage.metadata["title"]) == ("def f(): ...", "f")
