"""The SQL of a search: a leg's recall, exact scores, and the whole hybrid in one statement.

Scores are pgvector's inner products, MaxSim is one subquery over unnested token vectors. Rows
of equal score keep the order of their numbers, that of insertion.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, LiteralString

import numpy as np
from psycopg import sql
from scipy import sparse as sp

from m3_retrievers.index.base import Filter
from m3_retrievers.index.pgvector.filters import Params, where
from m3_retrievers.index.pgvector.rows import Reals
from m3_retrievers.index.pgvector.schema import Table
from m3_retrievers.index.pgvector.values import key_of
from m3_retrievers.types.hits import Query
from m3_retrievers.types.packed import MultiVectors
from m3_retrievers.types.plan import Mode, Plan

# PostgreSQL's bigint ends a little above; a k beyond it means all.
_ALL = 2**62

# A document's token vectors are brought out of storage and widened once, not for each of the
# query's (200 documents of 64 × 384, 20 query tokens: 130 ms against 290 for a join and GROUP BY)
_MAXSIM: LiteralString = """
CROSS JOIN LATERAL (SELECT d.colbert::{vector}[] AS vectors OFFSET 0) AS kept
CROSS JOIN LATERAL (
    SELECT coalesce(avg((
        SELECT max({inner}(asked.vector, one)) FROM unnest(kept.vectors) AS each (one)
    )), 0) AS colbert FROM asked
) AS late"""
_ASKED: LiteralString = """
SELECT ({tokens}::real[])[(at - 1) * {width} + 1 : at * {width}]::{vector} AS vector
FROM generate_series(1, {count}::int) AS places (at)"""

_EXACT: LiteralString = """
SELECT d.number, d.id, {score} AS score FROM {table} AS d {maxsim} WHERE {admitted}
ORDER BY score DESC, number LIMIT {k}"""
# OFFSET 0 keeps the planner from computing the score three times over
_LEXICAL: LiteralString = """
SELECT number, id, score FROM (
    SELECT d.number, d.id, {score} AS score FROM {table} AS d WHERE {admitted} OFFSET 0
) AS scored WHERE score <> 0 ORDER BY score DESC, number LIMIT {k}"""
# HNSW answers ORDER BY the distance alone
_NEAREST: LiteralString = """
SELECT number, id, score FROM (
    SELECT d.number, d.id, {score} AS score FROM {table} AS d WHERE {admitted}
    ORDER BY d.dense::{vector}({width}) OPERATOR({schema}.<#>) {asked} LIMIT {k}
) AS near ORDER BY score DESC, number"""

_LEG: LiteralString = """
SELECT {leg}::text, row_number() OVER (ORDER BY score DESC, number), id, score,
       NULL::text, NULL::text, NULL::float8[], NULL::bigint[] FROM {name}"""
_HITS: LiteralString = """
(SELECT NULL::text, row_number() OVER (ORDER BY hybrid DESC, number), d.id, hybrid,
        d.text, d.metadata_json, ARRAY[{scores}]::float8[], ARRAY[{ranks}]
 FROM ranked JOIN {table} AS d USING (number) WHERE {matches}
 ORDER BY hybrid DESC, number LIMIT {k})"""


@dataclass
class Search:
    """One statement over a table in the making: its parameters, and its parts of SQL.

    query: what is searched for. approximate: let an HNSW index answer the dense leg.
    """

    table: Table
    query: Query
    approximate: bool = False
    params: Params = field(default_factory=dict)
    _admitted: sql.Composable = field(init=False)

    def admit(self, filter: Filter | None, ids: Collection[str] | None) -> None:
        """Restrict what may be found; None does not."""
        parts = [where(filter, self.params)]
        if ids is not None:
            self.params["keys"] = [key_of(id) for id in ids]
            parts.append(sql.SQL("d.key = ANY ({}::bytea[])").format(sql.Placeholder("keys")))
        self._admitted = sql.SQL(" AND ").join(sql.SQL("({})").format(part) for part in parts)

    def recall(self, mode: Mode, k: int | None) -> sql.Composed:
        """Return the statement whose rows (number, id, score) are the k best of one mode."""
        return self._with_tokens([mode], [], self._leg(mode, k))

    def score(self, mode: Mode) -> sql.Composed:
        """Return the statement whose rows are (id, score) of what is admitted."""
        body = sql.SQL("SELECT d.id, {} FROM {} AS d {} WHERE {}").format(
            self._score(mode), self.table.itself, self._maxsim(mode), self._admitted
        )
        return self._with_tokens([mode], [], body)

    def hybrid(self, plan: Plan, k: int) -> sql.Composed:
        """Return the one statement of a hybrid search.

        Its rows are (leg, place, id, score, NULL …) for what each leg recalled, and
        (NULL, place, id, hybrid score, text, metadata, scores, ranks) for the k best hits;
        scores and ranks by ``plan.modes`` and the hybrid last.
        """
        modes = plan.modes
        names = {leg: sql.Identifier(f"leg_{leg}") for leg in plan.legs}
        tables: list[tuple[sql.Composable, sql.Composable]] = [
            (names[leg], self._leg(leg, plan.recall.depth(leg))) for leg in plan.legs
        ]
        union = sql.SQL(" UNION ").join(
            sql.SQL("SELECT number FROM {}").format(name) for name in names.values()
        )
        tables.append((sql.SQL("candidates"), union))
        tables.append((sql.SQL("scored"), self._scored(modes)))
        tables.append((sql.SQL("ranked"), self._ranked(plan)))
        parts: list[sql.Composable] = [
            sql.SQL(_LEG).format(leg=self._param(f"name_{leg}", leg), name=name)
            for leg, name in names.items()
        ]
        parts.append(self._hits(modes, k))
        return self._with_tokens(modes, tables, sql.SQL(" UNION ALL ").join(parts))

    # Parts

    def _leg(self, mode: Mode, k: int | None) -> sql.Composed:
        names: dict[str, Any] = {
            "score": self._score(mode),
            "table": self.table.itself,
            "admitted": self._admitted,
            "k": self._limit(f"k_{mode}", k),
        }
        if mode == "sparse":
            return sql.SQL(_LEXICAL).format(**names)
        if mode == "dense" and self.approximate and k is not None:
            width = self.query.representations.require("dense").shape[1]
            return sql.SQL(_NEAREST).format(
                **names,
                vector=self.table.of_vector("vector"),
                schema=sql.Identifier(self.table.vector_schema),
                width=sql.Literal(width),
                asked=self._dense(),
            )
        return sql.SQL(_EXACT).format(**names, maxsim=self._maxsim(mode))

    def _scored(self, modes: Sequence[Mode]) -> sql.Composable:
        scores = [sql.SQL("{} AS {}").format(self._score(m), sql.Identifier(m)) for m in modes]
        late: sql.Composable = sql.SQL("")
        if "colbert" in modes:
            late = self._maxsim("colbert")
        return sql.SQL("SELECT number, {} FROM candidates JOIN {} AS d USING (number) {}").format(
            sql.SQL(", ").join(scores), self.table.itself, late
        )

    def _ranked(self, plan: Plan) -> sql.Composable:
        terms = [
            sql.SQL("{}::float8 * {}").format(
                self._param(f"weight_{mode}", weight), sql.Identifier(mode)
            )
            for mode, weight in plan.weighted.items()
        ]
        columns: list[sql.Composable] = [sql.Identifier(mode) for mode in plan.modes]
        columns.append(sql.Identifier("hybrid"))
        places = [
            sql.SQL("row_number() OVER (ORDER BY {} DESC, number) AS {}").format(column, rank)
            for column, rank in zip(columns, _ranks(plan.modes), strict=True)
        ]
        return sql.SQL(
            "SELECT *, {} FROM (SELECT *, {} AS hybrid FROM scored OFFSET 0) AS weighed"
        ).format(sql.SQL(", ").join(places), sql.SQL(" + ").join(terms))

    def _hits(self, modes: Sequence[Mode], k: int) -> sql.Composable:
        columns = [sql.Identifier("ranked", name) for name in (*modes, "hybrid")]
        # what scores exactly 0 in every mode is no match
        matches = [sql.SQL("{} <> 0").format(column) for column in columns[:-1]]
        return sql.SQL(_HITS).format(
            scores=sql.SQL(", ").join(columns),
            ranks=sql.SQL(", ").join(_ranks(modes)),
            table=self.table.itself,
            matches=sql.SQL(" OR ").join(matches),
            k=self._limit("k", k),
        )

    def _score(self, mode: Mode) -> sql.Composable:
        if mode == "colbert":
            return sql.SQL("late.colbert")
        asked = self._dense() if mode == "dense" else self._sparse()
        return sql.SQL("{}(d.{}, {})").format(self._inner, sql.Identifier(mode), asked)

    @property
    def _inner(self) -> sql.Identifier:
        return self.table.of_vector("inner_product")

    def _dense(self) -> sql.Composable:
        row = self.query.representations.require("dense")[0]
        place = self._param("dense", Reals(np.asarray(row, np.float32)))
        return sql.SQL("{}::real[]::{}").format(place, self.table.of_vector("vector"))

    def _sparse(self) -> sql.Composable:
        place = self._param("sparse", _sparse_text(self.query.representations.require("sparse")))
        return sql.SQL("{}::{}").format(place, self.table.of_vector("sparsevec"))

    def _maxsim(self, mode: Mode) -> sql.Composable:
        if mode != "colbert":
            return sql.SQL("")
        return sql.SQL(_MAXSIM).format(inner=self._inner, vector=self.table.of_vector("vector"))

    def _with_tokens(
        self,
        modes: Sequence[Mode],
        tables: Sequence[tuple[sql.Composable, sql.Composable]],
        body: sql.Composed,
    ) -> sql.Composed:
        """Return WITH the tables, and with the query's token vectors where they are scored."""
        if "colbert" in modes:
            tokens: MultiVectors = self.query.representations.require("colbert")
            asked = sql.SQL(_ASKED).format(
                tokens=self._param("tokens", Reals(tokens.vectors.astype(np.float32).ravel())),
                width=sql.Literal(tokens.dimension),
                count=self._param("count", len(tokens.vectors)),
                vector=self.table.of_vector("vector"),
            )
            tables = [(sql.SQL("asked"), asked), *tables]
        if not tables:
            return body
        named = [sql.SQL("{} AS MATERIALIZED ({})").format(*table) for table in tables]
        return sql.SQL("WITH {} {}").format(sql.SQL(", ").join(named), body)

    def _param(self, name: str, value: Any) -> sql.Placeholder:
        self.params[name] = value
        return sql.Placeholder(name)

    def _limit(self, name: str, k: int | None) -> sql.Composable:
        place = self._param(name, None if k is None else min(int(k), _ALL))
        return sql.SQL("{}::bigint").format(place)


def _ranks(modes: Sequence[Mode]) -> list[sql.Identifier]:
    return [sql.Identifier(f"rank_{name}") for name in (*modes, "hybrid")]


def _sparse_text(row: sp.csr_array) -> str:
    """Return one row as pgvector writes it, columns from 1.

    >>> _sparse_text(sp.csr_array([[0.0, 0.5, 2.0]]))
    '{2:0.5,3:2.0}/3'
    """
    kept = sp.csr_array(row.astype(np.float32), copy=True)
    kept.sum_duplicates()
    kept.eliminate_zeros()
    pairs = zip(kept.indices.tolist(), kept.data.tolist(), strict=True)
    return "{" + ",".join(f"{at + 1}:{weight!r}" for at, weight in pairs) + f"}}/{row.shape[1]}"
