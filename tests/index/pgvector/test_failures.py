"""What goes wrong on the way to a server is an error that says what to do, and in time."""

import multiprocessing
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

import postgres
from m3_retrievers import PgVectorIndex
from m3_retrievers.errors import (
    DuplicateIdError,
    IndexModelError,
    IndexUnavailableError,
    InputError,
    M3Error,
    MissingExtraError,
    SavedIndexError,
)
from m3_retrievers.testing.samples import question, records, represent
from m3_retrievers.types.hits import Record
from m3_retrievers.types.plan import Plan

pytestmark = pytest.mark.slow

SECRET = "hunter2"


@pytest.fixture
def admin(connect):
    return connect(autocommit=True)


@pytest.fixture
def index(dsn, table):
    index = PgVectorIndex(dsn, table=table)
    yield index
    index.close()


def with_user(admin, name, *, password=False):
    """Make a user, who logs in by a password or without one."""
    admin.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{SECRET}'")
    if password:
        group = postgres.WITH_PASSWORD
        if not admin.execute("SELECT FROM pg_roles WHERE rolname = %s", [group]).fetchall():
            admin.execute(f"CREATE ROLE {group}")
        admin.execute(f"GRANT {group} TO {name}")


# No way in


@pytest.mark.parametrize(
    "target", ["host=", "no dsn", f"postgresql://u:{SECRET}@h:port/db?x", f"password={SECRET} x"]
)
def test_what_is_no_dsn_is_refused_and_not_shown(target):
    if target == "host=":
        target = f"host='{SECRET}"
    with pytest.raises(InputError, match="DSN") as raised:
        PgVectorIndex(target)
    assert SECRET not in str(raised.value)
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__


@pytest.mark.parametrize("target", [None, 5, b"dsn", object()])
def test_what_is_no_target_is_refused(target):
    with pytest.raises(InputError, match=r"psycopg\.Connection"):
        PgVectorIndex(target)


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), float("nan"), "3", True])
def test_a_timeout_is_a_number_of_seconds(timeout):
    with pytest.raises(InputError, match="timeout"):
        PgVectorIndex("dbname=x", timeout=timeout)


def test_a_server_that_is_not_there_is_named(tmp_path):
    with pytest.raises(IndexUnavailableError, match="nowhere") as raised:
        PgVectorIndex(f"host={tmp_path} user=ada password={SECRET} dbname=nowhere")
    assert SECRET not in str(raised.value)
    assert "ada@" in str(raised.value)


def test_a_wrong_password_is_not_shown(admin, server, table):
    with_user(admin, f"ada_{table}", password=True)
    database = admin.info.dbname
    good = server.dsn(database, user=f"ada_{table}", password=SECRET)
    bad = server.dsn(database, user=f"ada_{table}", password="wrong-" + SECRET)
    with pytest.raises(IndexUnavailableError, match="password authentication") as raised:
        PgVectorIndex(bad, table=table)
    shown = f"{raised.value} {raised.value.__cause__} {raised.value.__cause__!r}"
    assert SECRET not in shown
    with pytest.raises(IndexUnavailableError, match="permission denied for schema") as raised:
        PgVectorIndex(good, table=table)
    assert SECRET not in str(raised.value)


def test_a_reader_may_search_and_not_write(admin, server, index, table):
    index.add(records(3), represent(3))
    index.bind({"name": "m", "fingerprint": "f"}, extra={"a": 1})
    with_user(admin, f"reader_{table}")
    admin.execute(f"GRANT SELECT ON {table}, {table}_note TO reader_{table}")
    reader = PgVectorIndex(server.dsn(admin.info.dbname, user=f"reader_{table}"), table=table)
    try:
        assert len(reader.search(question(), Plan(), k=9).hits) == 3
        assert reader.bind({"name": "m", "fingerprint": "f"}) == {"a": 1}
        for write in (
            lambda: reader.add(records(1, first=5), represent(1)),
            lambda: reader.upsert(records(1), represent(1)),
            lambda: reader.delete(["d00"]),
            lambda: reader.bind({"name": "m", "fingerprint": "f"}, extra={}),
        ):
            with pytest.raises(IndexUnavailableError, match="grants"):
                write()
    finally:
        reader.close()
    assert index.where(None) == ["d00", "d01", "d02"]


def test_a_database_without_pgvector_says_who_may_add_it(admin, server, table):
    admin.execute(f"CREATE DATABASE bare_{table}")
    with pytest.raises(IndexUnavailableError, match="superuser runs: CREATE EXTENSION vector"):
        PgVectorIndex(server.dsn(f"bare_{table}"))


def test_pgvector_may_live_in_any_schema(admin, server, table):
    admin.execute(f"CREATE DATABASE apart_{table}")
    dsn = server.dsn(f"apart_{table}")
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA extensions; CREATE EXTENSION vector SCHEMA extensions")
    index = PgVectorIndex(dsn)
    try:
        index.add(records(5), represent(5))
        index.create_hnsw()
        assert len(index.search(question(), Plan(), k=3).hits) == 3
        assert index.vectors(["d01"]).dense.tolist() == represent(5).dense[1:2].tolist()
    finally:
        index.close()


# Tables


def test_a_table_of_another_make_is_left_alone(admin, dsn, table):
    admin.execute(f"CREATE TABLE {table} (id text)")
    with pytest.raises(SavedIndexError, match="another make"):
        PgVectorIndex(dsn, table=table)
    admin.execute(f"CREATE TABLE {table}_note (odd int)")
    admin.execute(f"INSERT INTO {table}_note VALUES (1)")
    with pytest.raises(SavedIndexError, match="another make"):
        PgVectorIndex(dsn, table=table)
    assert admin.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)


def test_a_table_of_a_later_version_is_refused(admin, dsn, table, index):
    admin.execute(
        f"UPDATE {table}_note SET value = replace(value, '\"version\": 1', '\"version\": 9')"
    )
    with pytest.raises(SavedIndexError, match="version 9"):
        PgVectorIndex(dsn, table=table)


def test_a_table_has_the_modes_it_was_made_with(dsn, table):
    PgVectorIndex(dsn, table=table, modes=["dense"]).close()
    again = PgVectorIndex(dsn, table=table)
    assert again.modes == {"dense"}
    again.close()
    with pytest.raises(SavedIndexError, match="modes"):
        PgVectorIndex(dsn, table=table, modes=["dense", "sparse"])


def test_a_table_that_was_dropped_is_missed(admin, index, table):
    index.add(records(1), represent(1))
    admin.execute(f"DROP TABLE {table}, {table}_note")
    for call in (
        lambda: len(index),
        lambda: index.search(question(), Plan(), k=1),
        lambda: index.upsert(records(1), represent(1)),
    ):
        with pytest.raises(SavedIndexError, match="dropped"):
            call()


@pytest.mark.parametrize("name", ["", "n" * 59, "a\x00b", "\ud800", 5, None])
def test_a_name_that_no_table_can_have(name):
    with pytest.raises(InputError, match="table expects"):
        PgVectorIndex("dbname=x", table=name)


def test_a_schema_that_is_not_there(dsn):
    with pytest.raises(InputError, match="CREATE SCHEMA"):
        PgVectorIndex(dsn, schema="not_there")


def test_eight_that_make_one_table_all_have_it(dsn, table):
    def make(_):
        index = PgVectorIndex(dsn, table=table)
        index.add([Record(f"d{_}", "")], represent(1))
        index.close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(make, range(8)))
    index = PgVectorIndex(dsn, table=table)
    assert len(index) == 8
    index.close()


def first_model(dsn, table, fingerprint, together, told):
    index = PgVectorIndex(dsn, table=table)
    together.wait()
    try:
        index.bind({"name": "m", "fingerprint": fingerprint})
        told.put(None)
    except IndexModelError:
        told.put(fingerprint)
    index.close()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_of_processes_that_are_first_with_a_model_each_one_wins(dsn, table):
    context = multiprocessing.get_context("fork")
    together, told = context.Barrier(4), context.Queue()
    processes = [
        context.Process(target=first_model, args=(dsn, table, f"f{at}", together, told))
        for at in range(4)
    ]
    for process in processes:
        process.start()
    refused = [told.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
    assert sum(one is None for one in refused) == 1
    index = PgVectorIndex(dsn, table=table)
    [winner] = {f"f{at}" for at in range(4)} - {one for one in refused if one}
    assert index.bind({"name": "m", "fingerprint": winner}) == {}
    index.close()


# Writers that meet


def test_upserts_of_the_same_ids_in_any_order_all_come_through(dsn, table):
    """In opposite orders they wait for each other: PostgreSQL ends one, and it begins anew."""
    indexes = [PgVectorIndex(dsn, table=table) for _ in range(4)]
    orders = [list(range(6)), list(range(5, -1, -1))] * 2

    def write(at):
        for turn in range(5):
            given = [Record(f"d{n}", f"{at} {turn}") for n in orders[at]]
            indexes[at].upsert(given, represent(6)[orders[at]])

    with ThreadPoolExecutor(4) as pool:
        for one in [pool.submit(write, at) for at in range(4)]:
            one.result()
    kept = indexes[0].get([f"d{n}" for n in range(6)])
    assert len(kept) == len(indexes[0]) == 6
    assert len({record.text for record in kept}) == 1, "an upsert counts whole"
    for index in indexes:
        index.close()


def test_an_add_names_the_id_that_another_was_first_with(dsn, table, index, monkeypatch):
    index.add(records(1), represent(1))
    # as if the other's add came between this one's question and its answer
    monkeypatch.setattr(type(index), "_known", lambda self, ids: [])
    with pytest.raises(DuplicateIdError, match="another writer"):
        index.add(records(3), represent(3))
    monkeypatch.undo()
    assert index.where(None) == ["d00"]


# Time


def test_a_statement_that_takes_too_long_is_ended(admin, dsn, table):
    index = PgVectorIndex(dsn, table=table, timeout=0.3)
    index.add(records(2), represent(2))
    with psycopg.connect(dsn) as other:
        other.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        for call in (
            lambda: index.search(question(), Plan(), k=1),
            lambda: index.upsert(records(1), represent(1)),
            lambda: index.delete(["d00"]),
        ):
            started = time.monotonic()
            with pytest.raises(IndexUnavailableError, match=r"within 0\.3 s"):
                call()
            assert time.monotonic() - started < 2
    assert index.where(None) == ["d00", "d01"]
    index.close()


def test_a_server_that_hangs_is_not_waited_for(index, dsn, table):
    """A stopped process neither answers nor closes its socket."""
    slow = PgVectorIndex(dsn, table=table, timeout=0.3)
    slow.add(records(1), represent(1))
    [kept] = slow._store.session._pool.idle
    pid = kept.info.backend_pid
    os.kill(pid, signal.SIGSTOP)
    try:
        started = time.monotonic()
        with pytest.raises(IndexUnavailableError, match="does not answer"):
            slow.search(question(), Plan(), k=1)
        assert time.monotonic() - started < 5
    finally:
        os.kill(pid, signal.SIGCONT)
    assert slow.where(None) == ["d00"], "on another connection"
    slow.close()


def test_without_psycopg_the_extra_is_named(monkeypatch):
    from m3_retrievers import checks

    monkeypatch.setattr(checks, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"m3-retrievers\[pgvector\]"):
        PgVectorIndex("dbname=x")


# The server dies


@pytest.mark.slow
def test_a_killed_server_loses_nothing_and_the_same_handle_goes_on(dsn):
    """Every operation in turn: an error, and after the restart what was acknowledged is there."""
    with postgres.server() as server:
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            connection.execute("CREATE EXTENSION vector")
        index = PgVectorIndex(server.dsn(), timeout=5)
        index.add(records(3), represent(3))
        for call in (
            lambda: index.add(records(1, first=9), represent(1)),
            lambda: index.upsert([Record("d00", "new")], represent(1)),
            lambda: index.delete(["d01"]),
            lambda: index.search(question(), Plan(), k=1),
        ):
            os.kill(server.pid, signal.SIGQUIT)
            _until_gone(server)
            with pytest.raises(IndexUnavailableError) as raised:
                call()
            assert isinstance(raised.value, M3Error)
            server.start()
            assert [record.text for record in index.get(["d00", "d01", "d02"])] == [
                f"text number {at}" for at in range(3)
            ]
            call()
            index.upsert(records(3), represent(3))
            index.delete(["d09"])
        index.close()


def _until_gone(server):
    for _ in range(200):
        if not (server.data / "postmaster.pid").exists():
            return
        time.sleep(0.02)
