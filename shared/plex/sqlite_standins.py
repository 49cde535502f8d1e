"""Stand-ins for the collations, tokenizers and functions that a schema names and SQLite lacks.

Plex's own build of SQLite has some that no other build has, and they differ between generations of
Plex: ``naturalsort`` until 2020, ``icu_root`` and ``collating`` since. So their names are read from
the schema. A stand-in sorts, splits and computes in its own way. Some of SQLite's findings are
therefore about the stand-in and not about the database; :class:`Tolerance` recognizes these.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_TOKEN = re.compile(
    r"""--[^\n]*|/\*.*?(?:\*/|\Z)|'(?:[^']|'')*'|"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\]"""
    r"""|[^\W\d][\w$]*|\S""",
    re.DOTALL,
)
_COMMENT = ("--", "/*")
_QUOTES = {"'": "'", '"': '"', "`": "`", "[": "]"}
_BUILT_IN = frozenset({"BINARY", "NOCASE", "RTRIM"})
"""Collations of every SQLite. SQLite's own list also has those that a schema merely names."""
# fmt: off
_NO_FUNCTIONS = frozenset(
    {
        "ALL", "AND", "AS", "BETWEEN", "CASE", "CAST", "CHECK", "COLLATE", "DISTINCT",
        "ELSE", "ESCAPE", "EXISTS", "FILTER", "FROM", "GLOB", "IN", "IS", "ISNULL",
        "LIKE", "MATCH", "NOT", "NOTNULL", "NULL", "ON", "OR", "OVER", "REGEXP", "SELECT",
        "THEN", "VALUES", "WHEN", "WHERE",
    }
)
# fmt: on
"""Keywords that a parenthesis may follow in an expression."""
_FULL_TEXT = re.compile(r"\bUSING\s+(fts[345])\b", re.IGNORECASE)
_TOKENIZER = re.compile(r"[(,]\s*tokenize\W[\s=]*[\"'`\[]?\s*([^\s\"'`\],)]+)", re.IGNORECASE)

_MISSING = re.compile(r"(?:row \d+ missing from|non-unique entry in) index (.+)", re.DOTALL)
_COUNT = re.compile(r"wrong # of entries in index (.+)", re.DOTALL)
_ORDER = re.compile(r"row not in PRIMARY KEY order for (.+)", re.DOTALL)
_CONSTRAINT = re.compile(r"CHECK constraint failed in (.+)", re.DOTALL)
_INVERTED = re.compile(r"(?:malformed|unable to validate the) inverted index for FTS\d table .+")


@dataclass(frozen=True)
class Tolerance:
    """The indexes and tables about which a stand-in may cause findings."""

    sorted: set[str] = field(default_factory=set)
    """Indexes, and tables without rowid, that are sorted by a foreign collation."""
    computed: set[str] = field(default_factory=set)
    """Indexes whose entries depend on a foreign function or collation."""
    constrained: set[str] = field(default_factory=set)
    """Tables whose constraints or generated columns depend on a foreign function or collation."""

    def covers(self, finding: str) -> bool:
        """Return whether a stand-in may have caused ``finding``.

        In a healthy database, the full-text index of a table may differ from its content, because
        Plex no longer maintains the full-text tables of older generations.
        """
        if found := _MISSING.fullmatch(finding):
            return found[1] in self.sorted or found[1] in self.computed
        if found := _COUNT.fullmatch(finding):
            return found[1] in self.computed
        if found := _ORDER.fullmatch(finding):
            return found[1] in self.sorted
        if found := _CONSTRAINT.fullmatch(finding):
            return found[1] in self.constrained
        if any(finding.startswith(f"NULL value in {table}.") for table in self.constrained):
            return True
        return _INVERTED.match(finding) is not None


@dataclass(frozen=True)
class Schema:
    """The parts of a database's schema that matter for its check."""

    tolerance: Tolerance = field(default_factory=Tolerance)
    segmented: list[str] = field(default_factory=list)
    """Full-text tables whose index consists of segments: FTS3 and FTS4."""
    opaque: list[str] = field(default_factory=list)
    """Other full-text tables."""
    names: set[str] = field(default_factory=set)
    """Names of all tables and indexes."""


def stand_in(connection: Any) -> Schema:  # noqa: ANN401 - of whichever SQLite
    """Register stand-ins for everything that the schema names and this SQLite lacks."""
    rows = connection.execute(
        "SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_master"
    ).fetchall()
    tokens = {(kind, name): list(_tokens(sql)) for kind, name, _, sql in rows}
    collations = {
        name
        for each in tokens.values()
        for name in _collations(each)
        if name.upper() not in _BUILT_IN
    }
    functions = {name.upper() for name, *_ in connection.execute("PRAGMA function_list")}
    foreign = {
        key: {name for name in _functions(key[0], each) if name.upper() not in functions}
        for key, each in tokens.items()
    }
    for name in collations:
        connection.create_collation(name, lambda one, other: (one > other) - (one < other))
    for name in set().union(*foreign.values()):
        connection.create_function(name, -1, lambda *_: None, deterministic=True)
    return Schema(
        tolerance=_tolerance(connection, rows, tokens, foreign),
        segmented=_full_text(connection, rows, {"fts3", "fts4"}),
        opaque=[name for *_, name in _virtual(rows, {"fts5"})],
        names={name for _, name, _, _ in rows},
    )


def _tolerance(
    connection: Any,  # noqa: ANN401
    rows: list[Any],
    tokens: dict[tuple[str, str], list[str]],
    foreign: dict[tuple[str, str], set[str]],
) -> Tolerance:
    found = Tolerance()
    for kind, name, table, _ in rows:
        of_table = tokens.get(("table", table), [])
        mine = [*tokens[kind, name], *of_table]
        is_collated = any(each.upper() not in _BUILT_IN for each in _collations(mine))
        is_computed = bool(foreign[kind, name] or foreign.get(("table", table)))
        if kind == "table" and (is_computed or is_collated):
            found.constrained.add(name)
            found.sorted.add(name)
        if kind != "index":
            continue
        columns = connection.execute("SELECT * FROM pragma_index_xinfo(?)", (name,)).fetchall()
        if any(column[4] and column[4].upper() not in _BUILT_IN for column in columns):
            found.sorted.add(name)
        is_expression = any(column[1] == -2 for column in columns)  # noqa: PLR2004 - no column's
        is_partial = "WHERE" in (token.upper() for token in tokens[kind, name])
        if is_computed or (is_collated and (is_expression or is_partial)):
            found.computed.add(name)
    return found


def _full_text(connection: Any, rows: list[Any], modules: set[str]) -> list[str]:  # noqa: ANN401
    """Return the full-text tables of ``modules``, and register a tokenizer for each.

    The tokenizer's address is a bound parameter, because newer versions of SQLite require that.
    """
    names = []
    for sql, name in _virtual(rows, modules):
        names.append(name)
        if (found := _TOKENIZER.search(sql)) is None:
            continue
        with suppress(connection.OperationalError):  # a SQLite without FTS skips these tables
            (simple,) = connection.execute("SELECT fts3_tokenizer(?)", ("simple",)).fetchone()
            try:
                connection.execute("SELECT fts3_tokenizer(?)", (found[1],)).fetchone()
            except connection.OperationalError:
                connection.execute("SELECT fts3_tokenizer(?, ?)", (found[1], simple)).fetchone()
    return names


def _virtual(rows: list[Any], modules: set[str]) -> Iterator[tuple[str, str]]:
    for kind, name, _, sql in rows:
        if kind == "table" and (found := _FULL_TEXT.search(sql)) and found[1].lower() in modules:
            yield sql, name


def _tokens(sql: str) -> Iterator[str]:
    return (token for token in _TOKEN.findall(sql) if not token.startswith(_COMMENT))


def _collations(tokens: list[str]) -> Iterator[str]:
    for token, following in pairwise(tokens):
        if token.upper() == "COLLATE":
            yield _unquoted(following)


def _functions(kind: str, tokens: list[str]) -> set[str]:
    """Return the names of functions that are computed when rows are read."""
    if kind == "index":
        begin = next((place for place, each in enumerate(tokens) if each.upper() == "ON"), 0)
        return set(_called(tokens[begin + 2 :]))
    if kind == "table" and [token.upper() for token in tokens[:2]] == ["CREATE", "TABLE"]:
        return set(_called(_expressions(tokens)))
    return set()


def _expressions(tokens: list[str]) -> Iterator[str]:
    """Yield the tokens of CHECK constraints and generated columns."""
    depth = 0
    for before, each in pairwise(tokens):
        if depth:
            depth += (each == "(") - (each == ")")
        elif each == "(" and before.upper() in {"CHECK", "AS"}:
            depth = 1
        if depth:
            yield each


def _called(tokens: Iterable[str]) -> Iterator[str]:
    before = name = ""
    for each in tokens:
        is_name = re.match(r"[^\W\d]|[\"`\[]", name) is not None
        if each == "(" and is_name and before.upper() != "AS" and name.upper() not in _NO_FUNCTIONS:
            yield _unquoted(name)
        before, name = name, each


def _unquoted(token: str) -> str:
    end = _QUOTES.get(token[0])
    if end is None:
        return token
    return token[1:-1].replace(end * 2, end) if end != "]" else token[1:-1]
