"""The table, as the index speaks to it: checked values in, plain values out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from itertools import islice
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from m3_retrievers.errors import InputError
from m3_retrievers.index.base import Filter
from m3_retrievers.index.incoming import check_representations
from m3_retrievers.index.pgvector.answers import record_of
from m3_retrievers.index.pgvector.filters import Params, where
from m3_retrievers.index.pgvector.lent import Lent
from m3_retrievers.index.pgvector.own import Own
from m3_retrievers.index.pgvector.rows import colbert_of, dense_of, rows_of, sparse_of
from m3_retrievers.index.pgvector.schema import Table, open_table
from m3_retrievers.index.pgvector.session import Connection, Row, Session, cursor, execute
from m3_retrievers.index.pgvector.values import TokenDtype, key_of, read
from m3_retrievers.types.hits import Record
from m3_retrievers.types.representations import Output, Representations

# Rows in one COPY: the server's time limit counts for each, and the whole is one transaction.
_ROWS_AT_ONCE = 256
# How far an HNSW scan looks: twice a leg's usual depth. It goes on by steps where a filter leaves
# fewer than were asked for (pgvector 0.8).
_EXPLORED = {"hnsw.ef_search": "200", "hnsw.iterative_scan": "strict_order"}
_WIDEST_HNSW = 2000


def open_store(
    target: Any,
    *,
    table: str,
    schema: str | None,
    modes: Sequence[Output] | None,
    colbert_dtype: TokenDtype | None,
    timeout: float,
    approximate: bool,
) -> Store:
    """Return the store behind a DSN or a connection, its table made where there is none."""
    session: Session
    if isinstance(target, str):
        session = Own(target, timeout=timeout, settings=_EXPLORED if approximate else {})
    elif isinstance(target, psycopg.Connection):
        session = Lent(target)
    else:
        raise InputError(
            "PgVectorIndex expects a DSN such as 'postgresql://user@host/database' or a "
            f"psycopg.Connection, got a {type(target).__name__}."
        )
    with ExitStack() as undone:
        undone.callback(session.close)
        made = open_table(session, table, schema=schema, modes=modes, colbert_dtype=colbert_dtype)
        undone.pop_all()
    return Store(session, made)


class Store:
    """The rows of one table. Ids, filters and representations were checked before."""

    def __init__(self, session: Session, table: Table) -> None:
        self.session, self.table = session, table

    # Out of it

    def count(self) -> int:
        [(count,)] = self._fetch("SELECT count(*) FROM {table}", {})
        return int(count)

    def known(self, ids: Sequence[str]) -> list[str]:
        """Return those of the ids that are there, in order of insertion."""
        query = "SELECT id FROM {table} WHERE key = ANY ({keys}::bytea[]) ORDER BY number"
        return [read(id) for (id,) in self._fetch(query, {"keys": _keys(ids)})]

    def records(self, ids: Sequence[str]) -> dict[str, Record]:
        """Return the records of those ids that are there, by id."""
        query: LiteralString = """
            SELECT id, text, metadata_json FROM {table} WHERE key = ANY ({keys}::bytea[])"""
        found = [record_of(*row) for row in self._fetch(query, {"keys": _keys(ids)})]
        return {record.id: record for record in found}

    def where(self, filter: Filter | None) -> list[str]:
        """Return the ids that the filter admits, in order of insertion."""
        params: Params = {}
        admitted = where(filter, params)
        query: LiteralString = "SELECT id FROM {table} WHERE {admitted} ORDER BY number"
        return [read(id) for (id,) in self._fetch(query, params, admitted=admitted)]

    def page(self, filter: Filter | None, *, after: int, size: int) -> tuple[int, list[Record]]:
        """Return the next records that the filter admits, and the number of the last one."""
        params: Params = {"after": after, "size": int(size)}
        query: LiteralString = """
            SELECT id, text, metadata_json, number FROM {table}
            WHERE number > {after} AND ({admitted}) ORDER BY number LIMIT {size}"""
        rows = self._fetch(query, params, admitted=where(filter, params))
        return (rows[-1][3] if rows else after), [record_of(*row[:3]) for row in rows]

    def vectors(self, ids: Sequence[str], outputs: Sequence[Output]) -> Representations:
        """Return what is kept of records that are there, a row an id."""
        send = self.table.of_vector
        query: LiteralString = """
            SELECT id, {dense}, {sparse}, {colbert} FROM {table}
            WHERE key = ANY ({keys}::bytea[])"""
        nothing = sql.SQL("NULL::bytea")
        columns: dict[str, sql.Composable] = {
            "dense": sql.SQL("{}(dense)").format(send("vector_send")),
            "sparse": sql.SQL("{}(sparse)").format(send("sparsevec_send")),
            "colbert": sql.SQL("array_send(colbert)"),
        }
        asked = {name: columns[name] if name in outputs else nothing for name in columns}
        by_id = {
            read(id): dict(zip(columns, values, strict=True))
            for id, *values in self._fetch(query, {"keys": _keys(ids)}, **asked)
        }
        gone = next((id for id in ids if id not in by_id), None)
        if gone is not None:
            raise InputError(f"expected ids of the index, got {gone!r:.80}.")
        kept = {name: [by_id[id][name] for id in ids] for name in outputs}
        widths = self.widths()
        dtype = self.table.colbert_dtype
        return Representations(
            dense=dense_of(kept["dense"], widths["dense"]) if "dense" in kept else None,
            sparse=sparse_of(kept["sparse"], widths["sparse"]) if "sparse" in kept else None,
            colbert=colbert_of(kept["colbert"], widths["colbert"], dtype)
            if "colbert" in kept
            else None,
        )

    # Into it

    def put(
        self, records: Sequence[Record], representations: Representations, *, replace: bool
    ) -> None:
        """Write records in one transaction; DuplicateIdError for a known id, not to be replaced."""
        rows = rows_of(
            records,
            representations,
            outputs=self.table.outputs,
            colbert_dtype=self.table.colbert_dtype,
            token_type=self.table.token_type,
        )
        batch = list(islice(rows, _ROWS_AT_ONCE))  # what cannot be stored shows before anything is
        columns = ("key", "id", "text", "metadata", "metadata_json", "folded", *self.table.outputs)
        copy = self._sql(
            "COPY {table} ({columns}) FROM STDIN (FORMAT BINARY)",
            columns=sql.SQL(", ").join(map(sql.Identifier, columns)),
        )
        with self.session.transaction() as connection:
            self._keep_widths(connection, records, representations)
            if replace:
                self._delete(connection, {"keys": _keys([record.id for record in records])})
            while batch:
                with cursor(connection) as run, run.copy(copy) as into:
                    for row in batch:
                        into.write_row(row)
                batch = list(islice(rows, _ROWS_AT_ONCE))

    def delete(self, ids: Sequence[str] | None, filter: Filter | None) -> list[str]:
        """Remove what ids and filter both admit; return the ids, in order of insertion."""
        params: Params = {}
        admitted = where(filter, params)
        if ids is not None:
            params["keys"] = _keys(ids)
        with self.session.transaction() as connection:
            gone = self._delete(connection, params, admitted=admitted)
        return [read(id) for _, id in sorted(gone)]

    def _delete(
        self, connection: Connection, params: Params, *, admitted: sql.Composable | None = None
    ) -> list[Row]:
        tests = [] if admitted is None else [admitted]
        if "keys" in params:
            tests.append(sql.SQL("key = ANY ({}::bytea[])").format(sql.Placeholder("keys")))
        both = sql.SQL(" AND ").join(sql.SQL("({})").format(test) for test in tests)
        query = self._sql("DELETE FROM {table} WHERE {both} RETURNING number, id", both=both)
        return execute(connection, query, params)

    # The note

    def note(self, name: str) -> dict[str, Any]:
        """Return a JSON record of the note; {} where there is none."""
        query = "SELECT value FROM {note} WHERE name = {name}"
        rows = self._fetch(query, {"name": name})
        return dict(json.loads(rows[0][0])) if rows else {}

    def write_note(self, name: str, value: Mapping[str, Any]) -> None:
        """Keep a JSON record in the note."""
        params = {"name": name, "value": json.dumps(value)}
        query = self._sql(
            "INSERT INTO {note} VALUES ({name}, {value}) "
            "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            **_places(params),
        )
        with self.session.transaction() as connection:
            execute(connection, query, params)

    def widths(self) -> dict[str, int]:
        """Return the width of each output, {} before anything was added."""
        return self.note("widths")

    def lock_note(self, connection: Connection) -> None:
        """Keep other writers of the note out until the transaction ends."""
        execute(connection, self._sql("SELECT FROM {note} WHERE name = 'make' FOR NO KEY UPDATE"))

    def _keep_widths(
        self,
        connection: Connection,
        records: Sequence[Record],
        representations: Representations,
    ) -> None:
        """Note the widths with the first records; those of another writer count if it was first."""
        outputs, count = self.table.outputs, len(records)
        held = self.widths()
        if not held and outputs:
            given = check_representations(representations, stored=outputs, count=count, held={})
            params = {"value": json.dumps(given)}
            insert = self._sql(
                "INSERT INTO {note} VALUES ('widths', {value}) ON CONFLICT DO NOTHING",
                **_places(params),
            )
            execute(connection, insert, params)
            held = self.widths()
        check_representations(representations, stored=outputs, count=count, held=held)

    # HNSW

    def create_hnsw(self, *, m: int, ef_construction: int) -> None:
        """Make an HNSW index over the dense vectors, if there is none."""
        width = self.widths().get("dense")
        if width is None or width > _WIDEST_HNSW:
            raise InputError(
                f"create_hnsw expects dense vectors of up to {_WIDEST_HNSW:,} dimensions in the "
                f"table, got {'none yet' if width is None else width}. Add documents first, or "
                "keep the exact search."
            )
        query = self._sql(
            "CREATE INDEX IF NOT EXISTS {name} ON {table} USING hnsw "
            "((dense::{vector}({width})) {operators}) WITH (m = {m}, ef_construction = {ef})",
            name=sql.Identifier(f"{self.table.name}_hnsw"),
            vector=self.table.of_vector("vector"),
            operators=self.table.of_vector("vector_ip_ops"),
            width=sql.Literal(width),
            m=sql.Literal(m),
            ef=sql.Literal(ef_construction),
        )
        with self.session.transaction() as connection:
            # building takes as long as it takes
            execute(connection, sql.SQL("SET LOCAL statement_timeout = 0"))
            execute(connection, query)

    def _fetch(
        self, query: LiteralString, params: Mapping[str, Any], **parts: sql.Composable
    ) -> list[Row]:
        return self.session.fetch(self._sql(query, **_places(params), **parts), params)

    def _sql(self, query: LiteralString, **parts: sql.Composable) -> sql.Composed:
        return sql.SQL(query).format(table=self.table.itself, note=self.table.note, **parts)


def _keys(ids: Sequence[str]) -> list[bytes]:
    return [key_of(id) for id in ids]


def _places(params: Mapping[str, Any]) -> dict[str, sql.Composable]:
    return {name: sql.Placeholder(name) for name in params}
