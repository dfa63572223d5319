"""A large file's sum is remembered as long as it is the same file."""

import hashlib
import os
import time

import pytest

from m3_retrievers.encoder import checksums
from m3_retrievers.encoder.checksums import sha256


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))
    monkeypatch.setattr(checksums, "_SMALLEST", 10)
    path = tmp_path / "weights"
    path.write_bytes(b"x" * 100)
    return path


def later(monkeypatch):
    """Let the files of now be old enough to be remembered."""
    real = time.time
    monkeypatch.setattr(checksums.time, "time", lambda: real() + 60)


def notes(file):
    return list((file.parent / "cache").rglob("*.json"))


def test_a_sum_is_computed_once_for_a_file_that_stays(file, monkeypatch):
    later(monkeypatch)
    first = sha256(file)
    assert first == hashlib.sha256(b"x" * 100).hexdigest()
    assert len(notes(file)) == 1
    monkeypatch.setattr(checksums, "_hashed", lambda _: "again")
    assert sha256(file) == first


def test_another_content_of_the_same_size_and_time_has_its_own_sum(file, monkeypatch):
    later(monkeypatch)
    first, times = sha256(file), file.stat()
    file.write_bytes(b"y" * 100)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # its change of status is later
    assert sha256(file) != first
    assert sha256(file) == hashlib.sha256(b"y" * 100).hexdigest()


def test_a_fresh_file_is_not_remembered_for_it_may_change_within_a_tick(file):
    sha256(file)
    assert not notes(file)


@pytest.mark.parametrize("content", ["", "[]", '{"sha256": 3}', "\0", '{"file": 1, "sha256": "a"}'])
def test_a_broken_note_is_not_believed(file, monkeypatch, content):
    later(monkeypatch)
    expected = sha256(file)
    notes(file)[0].write_text(content)
    assert sha256(file) == expected


def test_without_a_place_to_write_it_is_computed(file, monkeypatch):
    later(monkeypatch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(file))  # a file is no folder
    monkeypatch.setenv("LOCALAPPDATA", str(file))
    assert sha256(file) == hashlib.sha256(b"x" * 100).hexdigest()
