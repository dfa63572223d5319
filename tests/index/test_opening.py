"""An index by one string: which class, which message, and no password in it."""

import builtins
from pathlib import Path

import pytest

from m3_retrievers.errors import InputError, MissingExtraError, SavedIndexError
from m3_retrievers.index import opening
from m3_retrievers.lexical.bm25 import BM25
from m3_retrievers.testing import samples


@pytest.mark.parametrize(
    ("address", "engine", "target", "path"),
    [
        ("./notes.m3", "sqlite", "./notes.m3", "notes.m3"),
        ("notes", "sqlite", "notes", "notes"),
        (Path("a") / "b:c", "sqlite", "a/b:c", "a/b:c"),
        ("./a:b", "sqlite", "./a:b", "a:b"),
        ("C:\\notes.m3", "sqlite", "C:\\notes.m3", "C:\\notes.m3"),
        ("sqlite:./notes.m3", "sqlite", "./notes.m3", "notes.m3"),
        ("qdrant:./data", "qdrant", "./data", "data"),
        ("QDRANT:https://host:6333", "qdrant", "https://host:6333", None),
        ("milvus:./m.db", "milvus", "./m.db", "m.db"),
        ("milvus:http://host:19530", "milvus", "http://host:19530", None),
        ("postgresql://me:pw@host/db", "postgresql", "postgresql://me:pw@host/db", None),
        ("postgres://host/db", "postgresql", "postgres://host/db", None),
    ],
    ids=str,
)
def test_an_address_names_an_engine_and_a_place(address, engine, target, path):
    found = opening.parse_address(address)
    assert (found.engine, found.target) == (engine, target)
    assert found.path == (None if path is None else Path(path))


@pytest.mark.parametrize("address", ["mysql://me:secret@host/db", "qdrant:", "s3:secret"])
def test_an_unknown_address_is_refused_without_its_password(address):
    with pytest.raises(InputError, match=r"begins with '(mysql|qdrant|s3):'") as raised:
        opening.open(address)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("address", ["", None, 7, b"milvus:./m.db"])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(InputError, match="expected an index's address"):
        opening.open(address)


def test_an_address_is_shown_without_secrets():
    shown = opening.shown_address
    assert shown("qdrant:https://me:pw@host:1/a?key=pw") == "qdrant:https://host:1/a"
    assert shown("postgresql://me:p@w@host/db") == "postgresql://host/db"
    assert shown("./what?.m3") == "./what?.m3"


@pytest.mark.parametrize("address", ["nowhere.m3", "qdrant:nowhere", "milvus:nowhere.db"])
def test_nothing_is_made_where_nothing_shall_be(address, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SavedIndexError, match="got nothing there"):
        opening.open(address, create=False)
    assert list(tmp_path.iterdir()) == []


def test_a_saved_folder_opens_as_the_index_it_holds(tmp_path):
    index = opening.LocalIndex()
    index.add(samples.records(3), samples.represent(3))
    index.save(tmp_path / "saved")
    assert opening.open(tmp_path / "saved").where(None) == ["d00", "d01", "d02"]


@pytest.mark.parametrize(
    ("address", "package", "extra"),
    [
        ("qdrant:http://localhost:6333", "qdrant_client", "qdrant"),
        ("milvus:http://localhost:19530", "pymilvus", "milvus"),
        ("postgresql://localhost/db", "psycopg", "pgvector"),
    ],
)
def test_an_engine_that_is_not_installed_names_its_extra(address, package, extra, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"m3-retrievers\[{extra}\]"):
        opening.open(address)


@pytest.mark.parametrize("address", ["milvus:./m.db", "postgresql://localhost/db"])
def test_bm25_is_not_dropped_in_silence(address, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="keeps no BM25"):
        opening.open(address, weighting=BM25())
    assert list(tmp_path.iterdir()) == []


def test_open_is_ours_and_the_built_in_one_is_python_s():
    assert opening.open is not builtins.open
