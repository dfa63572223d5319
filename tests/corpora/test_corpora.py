import sys
import sysconfig
from collections import Counter
from pathlib import Path

import pytest

from m3_retrievers.corpora.folder import read_folder
from m3_retrievers.corpora.passages import read_passages
from m3_retrievers.corpora.standard_library import standard_library
from m3_retrievers.errors import InputError


def test_headings_part_passages_and_name_them():
    text = "# Setup\n\nInstall it.\n\nRun it.\n\n## Use\n\nAsk it."
    first, second = read_passages(text, source="guide.md")
    assert first.text == "# Setup\n\nInstall it.\n\nRun it."
    assert dict(second.metadata) == {"source": "guide.md", "line": 7, "title": "Use"}
    assert [first.id, second.id] == ["guide.md#1", "guide.md#2"]


def test_an_underlined_title_is_a_heading_in_rst():
    text = "Setup\n=====\n\nInstall it.\n\nUse\n---\n\nAsk it."
    assert [p.metadata["title"] for p in read_passages(text, source="a.rst")] == ["Setup", "Use"]


def test_long_prose_is_cut_between_words_and_loses_none():
    words = [f"word{number}" for number in range(1000)]
    passages = read_passages(
        "\n".join([" ".join(words[:700]), " ".join(words[700:])]), source="a.txt"
    )
    assert [word for passage in passages for word in passage.text.split()] == words
    assert all(len(passage.text.split()) <= 200 for passage in passages)


def test_python_is_split_at_definitions_with_their_lines():
    code = (
        "import os\n\n\n@cache\ndef one():\n    return 1\n\n\nclass Two:\n    x = 2\n\nprint(1)\n"
    )
    found = [(p.metadata["title"], p.metadata["line"]) for p in read_passages(code, source="a.py")]
    assert found == [("a.py", 1), ("one", 4), ("Two", 9), ("a.py", 12)]


def test_python_that_does_not_parse_is_read_as_prose():
    [passage] = read_passages("def broken(:\n  pass", source="a.py")
    assert passage.text.startswith("def broken")


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def test_a_folder_is_read_in_order_and_what_is_left_out_is_counted(tmp_path):
    folder = write(
        tmp_path,
        {
            "b.md": b"# B\n\nText.",
            "a/deep.txt": "Größe".encode(),
            "latin.txt": "Größe".encode("latin-1"),
            "empty.txt": b" \n",
            "binary.txt": b"\x00\x01",
            "picture.png": b"png",
            ".git/hidden.md": b"hidden",
            "env/pyvenv.cfg": b"",
            "env/lib.py": b"x = 1",
        },
    )
    (folder / "loop").symlink_to(folder)
    found = read_folder(folder)
    assert [p.metadata["source"] for p in found.passages] == ["b.md", "latin.txt", "a/deep.txt"]
    assert found.files == 3
    assert found.left_out == {
        "binary": 1,
        "empty": 1,
        "of another kind": 1,
        "that are links, which are not followed": 1,
        "with undecodable bytes, read with a mark in their place": 1,
    }


def test_what_is_no_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="expected a folder"):
        read_folder(tmp_path / "missing")


@pytest.mark.slow
def test_the_standard_library_gives_a_few_thousand_documents_without_importing_it():
    records = standard_library()
    names = {record.id for record in records}
    assert len(records) > 2_000
    assert len(names) == len(records)
    assert {"csv.DictReader", "tempfile.TemporaryDirectory", "difflib.get_close_matches"} & names
    assert not any(name.startswith(("test.", "idlelib.")) for name in names)
    by_name = {record.id: record for record in records}
    gap = by_name["tempfile.mkdtemp"]
    assert gap.text.startswith("tempfile.mkdtemp(suffix=None")
    assert gap.metadata["kind"] == "function"
    some = standard_library(modules={"csv", "json"})
    assert some == [record for record in records if record.id.split(".")[0] in ("csv", "json")]


@pytest.mark.slow
def test_a_limit_spreads_over_the_library():
    modules = {"argparse", "ast", "asyncio", "calendar", "csv", "dis", "email", "glob", "heapq"}
    modules |= {"html", "io", "json", "locale", "pdb", "queue", "re", "shutil", "smtplib", "stat"}
    modules |= {"string", "tarfile", "tempfile", "threading", "timeit", "urllib", "zipfile"}
    all_of_them = standard_library(modules=modules)
    few = standard_library(50, modules=modules)
    assert len(few) == 50 < len(all_of_them)
    shares = Counter(record.id.split(".")[0] for record in all_of_them)
    step = -(-len(all_of_them) // 50)  # of so many records in a row one is taken
    large = {module for module, count in shares.items() if count >= step}
    found = {record.id.split(".")[0] for record in few}
    assert large <= found
    assert len(found) > 15


CLASSIC = '''
"""The made module itself."""

Pair = tuple

class Box:
    """A box that holds one thing."""

    Key = str

    def open(self, key):
        """Open the box with a key."""

async def first(items):
    """Return the first of all items."""
'''
GENERIC = (
    CLASSIC.replace("Pair =", "type Pair[T] =")
    .replace("Key =", "type Key =")
    .replace("class Box", "class Box[T]")
    .replace("def open", "def open[K: str]")
    .replace("def first", "def first[*Ts]")
)
since_312 = pytest.mark.skipif(
    sys.version_info < (3, 12), reason="type statements and type parameters are new in Python 3.12"
)


@pytest.mark.parametrize("code", [CLASSIC, pytest.param(GENERIC, marks=since_312)])
def test_types_and_their_parameters_are_no_documents(code, tmp_path, monkeypatch):
    write(tmp_path, {"made.py": code.encode()})
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    found = {record.id: record.text for record in standard_library()}
    assert found == {
        "made": "made: The made module itself.",
        "made.Box": "made.Box: A box that holds one thing.",
        "made.first": "made.first(items): Return the first of all items.",
        "made.Box.open": "made.Box.open(self, key): Open the box with a key.",
    }
    titles = {passage.metadata["title"] for passage in read_passages(code, source="made.py")}
    assert titles == {"made.py", "Box", "first"}
