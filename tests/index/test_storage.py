import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from m3_retrievers.errors import IndexCorruptError, IndexModelError, SavedIndexError
from m3_retrievers.index.snapshot import manifest as manifests
from m3_retrievers.index.snapshot import storage
from m3_retrievers.index.snapshot.storage import read_generation, read_model, write_generation
from m3_retrievers.types.hits import Record

MODEL = {"name": "tiny", "fingerprint": "abc"}


def save(folder: Path, number: int) -> None:
    write_generation(
        folder,
        arrays={"dense.vectors": np.full((2, 3), number, np.float32)},
        documents=[Record("a", f"text {number}", {"n": number}), Record("b", "\ud800 ü 你", {})],
        settings={"number": number},
        model=MODEL,
    )


def number_in(folder: Path) -> int:
    """Return which save a folder holds, after checking that it holds all of it."""
    saved = read_generation(folder, model=MODEL)
    number = saved.settings["number"]
    assert (saved.arrays["dense.vectors"] == number).all()
    assert saved.records == [
        Record("a", f"text {number}", {"n": number}),
        Record("b", "\ud800 ü 你"),
    ]
    return number


def test_what_was_saved_comes_back(tmp_path):
    save(tmp_path / "index", 1)
    assert number_in(tmp_path / "index") == 1
    assert read_model(tmp_path / "index") == MODEL


def test_a_save_replaces_the_one_before_and_leaves_nothing_of_it(tmp_path):
    for number in (1, 2, 3):
        save(tmp_path, number)
        assert number_in(tmp_path) == number
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "generation-000003",
        "manifest.json",
        "saving.lock",
    ]


class Killed(BaseException):
    """Stands for the process being killed: nothing in the package catches it."""


def die_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the step-th of all file-system operations of a save kill it instead of being done."""
    done = [0]

    def counted(real):
        def call(*args, **kwargs):
            done[0] += 1
            if done[0] >= step:
                raise Killed
            return real(*args, **kwargs)

        return call

    monkeypatch.setattr(os, "fsync", counted(os.fsync))
    monkeypatch.setattr(storage, "save_file", counted(storage.save_file))
    for name in ("mkdir", "replace", "unlink", "rmdir", "write_bytes"):
        monkeypatch.setattr(Path, name, counted(getattr(Path, name)))


@pytest.mark.slow
def test_a_kill_at_any_step_leaves_the_old_index_or_the_new_one(tmp_path, monkeypatch):
    found, step = [], 0
    while True:
        step += 1
        folder = tmp_path / f"index-{step}"
        save(folder, 1)
        with monkeypatch.context() as patch:
            die_at(step, patch)
            try:
                save(folder, 2)
            except Killed:
                killed = True
            else:
                killed = False
        found.append(number_in(folder))
        save(folder, 3)
        assert number_in(folder) == 3
        assert sorted(p.name for p in folder.iterdir())[-2:] == ["manifest.json", "saving.lock"]
        assert len(list(folder.glob("generation-*"))) == 1
        if not killed:
            break
    assert found[0] == 1
    assert found[-1] == 2
    assert found == sorted(found)
    assert step > 10


def test_a_first_save_that_is_killed_leaves_a_folder_that_can_be_saved_into(tmp_path, monkeypatch):
    for step in range(1, 12):
        folder = tmp_path / f"index-{step}"
        with monkeypatch.context() as patch:
            die_at(step, patch)
            with pytest.raises(Killed):
                save(folder, 1)
        save(folder, 2)
        assert number_in(folder) == 2


# Children of a small process, so that no thread is lost in the fork; each leaves at its
# n-th opening, creating, renaming or removing of a file, with no chance to clean up.
REAL_KILLS = """
import os, sys
from pathlib import Path
from m3_retrievers.index.snapshot.storage import read_generation, write_generation
from m3_retrievers.types.hits import Record

def save(folder, number):
    settings = {"number": number}
    write_generation(folder, arrays={}, documents=[Record("a", "text")], settings=settings)

def killed(folder, step):
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] != 0
    left = [step]
    def count(event, arguments):
        left[0] -= event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir")
        if not left[0]:
            os._exit(9)
    sys.addaudithook(count)
    save(folder, 2)
    os._exit(0)

step, alive = 0, False
while not alive:
    step += 1
    folder = Path(sys.argv[1]) / str(step)
    save(folder, 1)
    alive = not killed(folder, step)
    print(read_generation(folder).settings["number"], end="")
    save(folder, 3)
    assert len(list(folder.iterdir())) == 3
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a forked child")
def test_a_process_that_really_dies_leaves_the_old_index_or_the_new_one(tmp_path):
    command = [sys.executable, "-c", REAL_KILLS, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = done.stdout
    assert found.strip("1").strip("2") == ""
    assert found.count("1") > 8
    assert found.endswith("22")


def files_of(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "saving.lock")


@pytest.mark.slow
def test_any_changed_byte_is_noticed_and_its_file_named(tmp_path):
    save(tmp_path / "index", 1)
    for path in files_of(tmp_path / "index"):
        content = path.read_bytes()
        for at in range(len(content)):
            changed = bytearray(content)
            changed[at] ^= 1
            path.write_bytes(bytes(changed))
            with pytest.raises(IndexCorruptError, match=path.name):
                read_generation(tmp_path / "index")
        path.write_bytes(content)
    assert number_in(tmp_path / "index") == 1


@pytest.mark.parametrize("keep", [0.0, 0.5])
def test_torn_and_missing_files_are_noticed(tmp_path, keep):
    save(tmp_path / "index", 1)
    for path in files_of(tmp_path / "index"):
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * keep)])
        with pytest.raises(IndexCorruptError, match=path.name):
            read_generation(tmp_path / "index")
        if path.name != "manifest.json":
            path.unlink()
            with pytest.raises(IndexCorruptError, match=f"{path.name}.*missing"):
                read_generation(tmp_path / "index")
        path.write_bytes(content)


def test_another_model_is_refused_and_both_are_named(tmp_path):
    save(tmp_path, 1)
    with pytest.raises(IndexModelError, match=r"'tiny'.*'abc'.*'other'.*'def'"):
        read_generation(tmp_path, model={"name": "other", "fingerprint": "def"})
    moved = {"name": "renamed", "fingerprint": "abc"}
    assert read_generation(tmp_path, model=moved).settings == {"number": 1}


def test_a_newer_format_is_refused_as_such(tmp_path):
    save(tmp_path, 1)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest.pop("sha256")
    (tmp_path / "manifest.json").write_bytes(manifests.rendered({**manifest, "version": 99}))
    with pytest.raises(SavedIndexError, match="version 99"):
        read_generation(tmp_path)


def test_a_manifest_that_names_foreign_files_is_refused(tmp_path):
    save(tmp_path / "index", 1)
    (tmp_path / "thesis.txt").write_text("mine")
    path = tmp_path / "index" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest.pop("sha256")
    manifest["files"]["../../thesis.txt"] = {"bytes": 4, "sha256": ""}
    path.write_bytes(manifests.rendered(manifest))
    with pytest.raises(IndexCorruptError, match="names files"):
        save(tmp_path / "index", 2)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_a_folder_without_an_index_is_no_index(tmp_path):
    with pytest.raises(SavedIndexError, match="manifest"):
        read_generation(tmp_path)
    with pytest.raises(SavedIndexError, match="manifest"):
        read_generation(tmp_path / "missing")


def test_a_folder_of_someone_elses_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(SavedIndexError, match=r"thesis\.txt"):
        save(tmp_path, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(SavedIndexError, match="file"):
        save(tmp_path / "thesis.txt", 1)


def test_files_of_the_users_beside_the_index_survive_every_save(tmp_path):
    save(tmp_path, 1)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "generation-000001" / "mine.txt").write_text("mine")
    shutil.copytree(tmp_path / "generation-000001", tmp_path / "copy")
    for number in (2, 3):
        save(tmp_path, number)
        assert number_in(tmp_path) == number
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert (tmp_path / "generation-000001" / "mine.txt").read_text() == "mine"
    assert (tmp_path / "copy" / "mine.txt").exists()


@pytest.mark.slow
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO])
def test_what_the_disk_refuses_is_an_error_of_ours_and_the_old_index_stays(
    code, tmp_path, monkeypatch
):
    """At every step of a save, and with nothing of the failed save left behind."""
    step, failed, messages = 0, True, []
    while failed:
        step += 1
        folder = tmp_path / f"index-{step}"
        save(folder, 1)
        left = [step]

        def refusing(real, left=left):
            def call(*args, **kwargs):
                left[0] -= 1
                if not left[0]:
                    raise OSError(code, os.strerror(code))
                return real(*args, **kwargs)

            return call

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", refusing(os.fsync))
            patch.setattr(storage, "save_file", refusing(storage.save_file))
            for name in ("mkdir", "replace", "write_bytes", "open"):
                patch.setattr(Path, name, refusing(getattr(Path, name)))
            try:
                save(folder, 2)
                failed = False
            except SavedIndexError as error:
                messages.append(str(error))
        assert number_in(folder) in (1, 2)
        assert len(list(folder.glob("generation-*"))) <= 2
        save(folder, 3)
        assert number_in(folder) == 3
    assert len(messages) > 8
    assert all(os.strerror(code) in one and str(tmp_path) in one for one in messages)


def test_loading_what_cannot_be_read_is_an_error_of_ours(tmp_path, monkeypatch):
    save(tmp_path, 1)

    def refused(*args, **kwargs):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    for name in ("read_bytes", "open", "stat"):
        with monkeypatch.context() as patch:
            patch.setattr(Path, name, refused)
            with pytest.raises(SavedIndexError, match="ermission"):
                read_generation(tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_folder_in_a_place_that_is_no_folder_is_refused():
    with pytest.raises(SavedIndexError, match="dev/full"):
        save(Path("/dev/full/index"), 1)
