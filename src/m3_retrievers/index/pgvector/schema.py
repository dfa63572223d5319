"""The table that an index is, and the note beside it: found, recognised, or made.

Everything is named with its schema, pgvector's types and functions too, so that the search
path, which is the caller's on their connection, changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, LiteralString

from psycopg import sql

from m3_retrievers.errors import IndexUnavailableError, InputError, SavedIndexError
from m3_retrievers.index.pgvector.session import Connection, Session, execute
from m3_retrievers.index.pgvector.values import TOKEN_DTYPES, TokenDtype
from m3_retrievers.types.representations import ALL_OUTPUTS, Output

_FORMAT, _VERSION = "m3-retrievers index", 1
# PostgreSQL cuts longer names without a word; what is made beside the table adds a suffix.
_LONGEST = 63 - len("_note")
_LOWEST = (0, 7)  # of pgvector, the first with sparsevec and halfvec

_FACTS = sql.SQL("""
WITH named AS (SELECT coalesce({schema}::text, current_schema()) AS schema),
     vector AS (SELECT extversion, extnamespace, nspname FROM pg_catalog.pg_extension
                JOIN pg_catalog.pg_namespace n ON n.oid = extnamespace WHERE extname = 'vector')
SELECT schema,
       EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = schema),
       current_setting('server_encoding'),
       (SELECT extversion FROM vector),
       (SELECT nspname FROM vector),
       ARRAY (SELECT relname::text FROM pg_catalog.pg_class c
              JOIN pg_catalog.pg_namespace n ON n.oid = relnamespace
              WHERE nspname = schema AND relname = ANY ({names})),
       ARRAY (SELECT t.oid::bigint FROM pg_catalog.pg_type t
              JOIN vector ON extnamespace = typnamespace
              WHERE typname IN ('vector', 'halfvec') ORDER BY typname)
FROM named
""").format(schema=sql.Placeholder("schema"), names=sql.Placeholder("names"))
_LOCK = sql.SQL("SELECT pg_advisory_xact_lock(hashtext({}), hashtext({}))").format(
    sql.Placeholder("format"), sql.Placeholder("table")
)

# number orders ties; key is what is unique, see ``values.key_of``; metadata is what filters
# read and metadata_json what was given; dense and sparse stay in the row, where a scan reads
# them, and ColBERT's vectors out of it, uncompressed: floats do not compress.
_TABLE: LiteralString = """
CREATE TABLE {table} (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key bytea NOT NULL UNIQUE,
    id text COLLATE "C" NOT NULL,
    text text NOT NULL,
    metadata jsonb NOT NULL,
    metadata_json text NOT NULL,
    folded jsonb,
    {columns}
);
CREATE INDEX ON {table} USING gin (metadata jsonb_path_ops);
CREATE INDEX ON {table} USING hash (id);
CREATE TABLE {note} (name text PRIMARY KEY, value text NOT NULL)
"""
_COLUMNS: Mapping[str, LiteralString] = {
    "dense": "dense {vector}",
    "sparse": "sparse {sparsevec}",
    "colbert": "colbert {token}[]",
}
_STORAGE: Mapping[str, LiteralString] = {"dense": "MAIN", "sparse": "MAIN", "colbert": "EXTERNAL"}


@dataclass(frozen=True, slots=True)
class Table:
    """A table as it was found or made.

    token_type: the database's number for the type of one token vector.
    """

    schema: str
    name: str
    vector_schema: str
    outputs: tuple[Output, ...]
    colbert_dtype: TokenDtype
    token_type: int

    @property
    def itself(self) -> sql.Identifier:
        return sql.Identifier(self.schema, self.name)

    @property
    def note(self) -> sql.Identifier:
        return sql.Identifier(self.schema, f"{self.name}_note")

    def of_vector(self, name: str) -> sql.Identifier:
        """Return the name of a type or a function of pgvector's."""
        return sql.Identifier(self.vector_schema, name)

    @property
    def token(self) -> sql.Identifier:
        return self.of_vector(_token(self.colbert_dtype))


def open_table(
    session: Session,
    name: str,
    *,
    schema: str | None,
    modes: Sequence[Output] | None,
    colbert_dtype: TokenDtype | None,
) -> Table:
    """Return the table of that name, made if there is none.

    schema: None is the first of the search path. modes, colbert_dtype: None takes those of a
    table that is there.

    Raises InputError for a name or modes that cannot be, SavedIndexError for a table of
    another make or with other modes, IndexUnavailableError without pgvector.
    """
    _check_options(name, schema, modes, colbert_dtype)
    facts = {"schema": schema, "names": [name, f"{name}_note"]}
    [(found, exists, encoding, version, vector_schema, there, types)] = session.fetch(_FACTS, facts)
    _check_database(session.place, encoding=encoding, version=version)
    if found is None or not exists:
        raise InputError(
            f"schema expects one that exists, got {found!r}. CREATE SCHEMA makes it; None "
            "stands for the first of the search path."
        )
    base = Table(found, name, vector_schema, (), "float16", 0)
    made = _read_make(session, base, there)
    if made is None:
        wanted = tuple(one for one in ALL_OUTPUTS if modes is None or one in modes)
        make: dict[str, Any] = {"modes": list(wanted), "colbert_dtype": colbert_dtype or "float16"}
        with session.transaction() as connection:
            # one process makes it, the others wait and find it
            execute(connection, _LOCK, {"format": _FORMAT, "table": f"{found}.{name}"})
            [(*_, there, _)] = session.fetch(_FACTS, facts)
            made = _read_make(session, base, there)
            if made is None:
                _create(connection, base, make)
                made = make
    _check_make(session.place, name, made, modes=modes, colbert_dtype=colbert_dtype)
    dtype: TokenDtype = made["colbert_dtype"]
    halfvec, vector = types
    token_type = halfvec if dtype == "float16" else vector
    return replace(base, outputs=tuple(made["modes"]), colbert_dtype=dtype, token_type=token_type)


def _create(connection: Connection, table: Table, make: Mapping[str, Any]) -> None:
    names = {"vector": table.of_vector("vector"), "sparsevec": table.of_vector("sparsevec")}
    token = table.of_vector(_token(make["colbert_dtype"]))
    columns = [sql.SQL(_COLUMNS[output]).format(**names, token=token) for output in make["modes"]]
    query = sql.SQL(_TABLE) if columns else sql.SQL(_TABLE.replace(",\n    {columns}", ""))
    whole = query.format(table=table.itself, note=table.note, columns=sql.SQL(", ").join(columns))
    execute(connection, whole)
    for output in make["modes"]:
        # apart: CREATE TABLE takes it from PostgreSQL 16 on
        kept = sql.SQL("ALTER TABLE {} ALTER {} SET STORAGE {}")
        storage = sql.SQL(_STORAGE[output])
        execute(connection, kept.format(table.itself, sql.Identifier(output), storage))
    insert = sql.SQL("INSERT INTO {} VALUES ('make', {})").format(
        table.note, sql.Placeholder("make")
    )
    value = json.dumps({"format": _FORMAT, "version": _VERSION, **make})
    execute(connection, insert, {"make": value})


def _read_make(session: Session, table: Table, there: Sequence[str]) -> dict[str, Any] | None:
    """Return what the note says the table is; None where there is neither.

    there: which of the two there are. Raises SavedIndexError for a table of another make.
    """
    if not there:
        return None
    if len(there) == 2:
        columns = sql.SQL("SELECT to_jsonb(n) ->> 'value' FROM {} n").format(table.note)
        query = columns + sql.SQL(" WHERE to_jsonb(n) ->> 'name' = 'make'")
        for (value,) in session.fetch(query, {}):
            make = _parsed(value)
            if make.get("format") == _FORMAT:
                if make["version"] > _VERSION:
                    raise SavedIndexError(
                        f"The table {table.name!r} in {session.place!r} has version "
                        f"{make['version']}, this m3-retrievers reads versions up to {_VERSION}. "
                        "Upgrade m3-retrievers."
                    )
                return make
    raise SavedIndexError(
        f"PgVectorIndex expects a table that it made, got {table.name!r} in {session.place!r}, "
        "which is of another make. Name another table=."
    )


def _parsed(value: Any) -> dict[str, Any]:
    try:
        make = json.loads(value)
    except (TypeError, ValueError):
        return {}
    return make if isinstance(make, dict) else {}


def _token(dtype: TokenDtype) -> LiteralString:
    return "halfvec" if dtype == "float16" else "vector"


# Checks


def _check_options(
    name: str,
    schema: str | None,
    modes: Sequence[Output] | None,
    colbert_dtype: TokenDtype | None,
) -> None:
    for option, value in (("table", name), ("schema", schema)):
        if value is None and option == "schema":
            continue
        fits = isinstance(value, str) and 0 < len(value.encode("utf-8", "replace")) <= _LONGEST
        if not fits or "\x00" in str(value) or any("\ud800" <= c <= "\udfff" for c in str(value)):
            raise InputError(
                f"{option} expects a name of 1 to {_LONGEST} bytes, got {value!r:.80}."
            )
    unknown = modes is not None and [mode for mode in modes if mode not in ALL_OUTPUTS]
    if isinstance(modes, str) or unknown:
        raise InputError(f"modes expects a list of some of {ALL_OUTPUTS}, got {modes!r}.")
    if colbert_dtype is not None and colbert_dtype not in TOKEN_DTYPES:
        raise InputError(f"colbert dtype expects one of {TOKEN_DTYPES}, got {colbert_dtype!r}.")


def _check_database(place: str, *, encoding: str, version: str | None) -> None:
    if encoding != "UTF8":
        raise SavedIndexError(
            f"PgVectorIndex expects a database in UTF8, got {encoding} in {place!r}."
        )
    if version is None:
        raise IndexUnavailableError(
            f"PgVectorIndex expects the extension pgvector in {place!r}, got a database without "
            "it. Its owner or a superuser runs: CREATE EXTENSION vector. Where the server does not "
            "know that, its administrator installs pgvector first."
        )
    if tuple(int(part) for part in version.split(".")[:2]) < _LOWEST:
        raise IndexUnavailableError(
            f"PgVectorIndex expects pgvector 0.7 or newer, got {version} in {place!r}. After "
            "upgrading it on the server run: ALTER EXTENSION vector UPDATE."
        )


def _check_make(
    place: str,
    name: str,
    make: Mapping[str, Any],
    *,
    modes: Sequence[Output] | None,
    colbert_dtype: TokenDtype | None,
) -> None:
    given = {"modes": modes and sorted(modes), "colbert_dtype": colbert_dtype}
    kept = {"modes": sorted(make["modes"]), "colbert_dtype": make["colbert_dtype"]}
    for option, value in given.items():
        if value is not None and value != kept[option]:
            raise SavedIndexError(
                f"The table {name!r} in {place!r} was made with {option}={kept[option]}, got "
                f"{value}. Leave {option} out to take the table as it is, or name another table=."
            )
