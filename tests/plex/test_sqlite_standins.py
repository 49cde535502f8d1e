"""Databases of each Plex generation, whose schemas have names that a stock SQLite lacks."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

import pytest

from shared.plex.sqlite_check import Soundness, check_database

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BOTH = pytest.mark.parametrize("sqlite", ["sqlite3", "pysqlite3"])


class Generation(NamedTuple):
    """Schema features of a generation of Plex that a stock SQLite may lack."""

    sort: str
    """Collation of the titles' index, as in the schema."""
    tokenizer: str
    """Argument of the full-text tables."""
    more: str = ""


GENERATIONS = {
    "1.18 of 2020": Generation("naturalsort", ""),
    "1.23 of 2021": Generation(
        "icu_root", ", tokenize=collating 'root@colStrength=primary;colAlternate=shifted'"
    ),
    "1.42 of 2025": Generation("icu_root", ", tokenize=collating 'root@colStrength=primary'"),
    "quoted names": Generation('"Natural Sort 2"', ", tokenize = \"Wörter\" 'x y'"),
    "functions": Generation(
        "[icu_root]",
        ", tokenize=collating",
        """
        CREATE TABLE extras(id INTEGER PRIMARY KEY, t TEXT COLLATE 'icu_root' UNIQUE,
          k TEXT GENERATED ALWAYS AS (icu_key(t)) VIRTUAL NOT NULL, CHECK (icu_valid(t) IS NOT 0));
        CREATE INDEX extras_fold ON extras(icu_fold(t), k);
        CREATE INDEX extras_part ON extras(id) WHERE t > 'm' COLLATE icu_root AND "icu_wide" (t);
        CREATE TABLE pairs(t TEXT COLLATE ICU_ROOT PRIMARY KEY, n) WITHOUT ROWID;
        CREATE TRIGGER fold AFTER UPDATE ON extras BEGIN SELECT icu_log(new.id); END;
        INSERT INTO extras(id, t) SELECT id, title || id FROM metadata_items;
        INSERT INTO pairs SELECT title || id, id FROM metadata_items;
        """,
    ),
}
ANY = pytest.mark.parametrize("generation", GENERATIONS.values(), ids=GENERATIONS)

_SCHEMA = """
PRAGMA page_size = 1024;
CREATE TABLE metadata_items(id INTEGER PRIMARY KEY, title varchar(255),
  title_sort varchar(255) COLLATE NOCASE, guid varchar(255), summary text);
CREATE TABLE tags(id INTEGER PRIMARY KEY, tag varchar(255) COLLATE NOCASE);
CREATE TABLE spellfix_tag_titles_vocab(id INTEGER PRIMARY KEY, word, k1, k2);
CREATE INDEX index_guid ON metadata_items(guid);
CREATE INDEX index_title_sort ON metadata_items(title_sort COLLATE {sort});
CREATE VIRTUAL TABLE locations USING rtree(id integer, lat_min, lat_max, lon_min, lon_max);
CREATE VIRTUAL TABLE fts4_titles USING fts4(content='metadata_items', title, summary);
CREATE VIRTUAL TABLE fts4_tags USING fts4(content='tags', tag);
"""
_ROWS = """
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
INSERT INTO metadata_items SELECT i, 'Film ' || (i * 7919 % 3001), substr('aBcD', i % 4 + 1, 1)
  || (i * 31 % 1000), 'plex://movie/' || (i * 7919), 'word' || i || ' and word' || (i * 3) FROM n;
INSERT INTO tags SELECT id, title FROM metadata_items;
INSERT INTO locations SELECT id, 1, 2, 3, 4 FROM metadata_items WHERE id < 100;
INSERT INTO fts4_titles(docid, title, summary) SELECT id, title, summary FROM metadata_items;
INSERT INTO fts4_tags(fts4_tags) VALUES('rebuild');
CREATE TABLE statistics(id INTEGER PRIMARY KEY, t text);
INSERT INTO statistics SELECT id, hex(zeroblob(400)) FROM metadata_items;
DELETE FROM statistics WHERE id % 100;
"""


def reverse(one: str, other: str) -> int:
    """Compare in an order that no stand-in has."""
    return (one < other) - (one > other)


def name_of(quoted: str) -> str:
    """Return a name without its quotes."""
    return quoted.strip('"[]')


@pytest.fixture
def database(tmp_path: Path, generation: Generation) -> Path:
    """Return a sound database of a generation, written with functions of Plex's SQLite."""
    path = tmp_path / "library.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as plex:
        plex.create_collation(name_of(generation.sort), reverse)
        for function in ("icu_key", "icu_fold", "icu_log"):
            plex.create_function(function, -1, lambda text: f"<{text}>", deterministic=True)
        for function in ("icu_valid", "icu_wide"):
            plex.create_function(function, -1, lambda _: 1, deterministic=True)
        plex.executescript(_SCHEMA.format(sort=generation.sort) + _ROWS + generation.more)
        plex.execute("PRAGMA writable_schema = ON")
        plex.execute(
            "UPDATE sqlite_master SET sql = replace(sql, 'tag)', ?) WHERE name = 'fts4_tags'",
            (f"tag{generation.tokenizer})",),
        )
        plex.execute(
            "INSERT INTO sqlite_master VALUES('table', 'spellfix_tag_titles',"
            " 'spellfix_tag_titles', 0, 'CREATE VIRTUAL TABLE spellfix_tag_titles USING spellfix1')"
        )
    return path


def check(path: Path, sqlite: str) -> Soundness:
    """Check a database with a stock SQLite."""
    return check_database(str(path), module=sqlite, plex_sqlite="/no/such/program")


@BOTH
@ANY
def test_sound_database_of_a_generation_passes(database: Path, sqlite: str) -> None:
    """A sound database passes and is checked whole, despite unknown names in its schema."""
    found = check(database, sqlite)
    assert (found.damage, found.not_checked) == ([], "")


def garbage_page(path: Path) -> None:
    """Overwrite two pages in the middle of the table of items."""
    with path.open("r+b") as file:
        file.seek(1024 * 60)
        file.write(os.urandom(2048))


def truncated(path: Path) -> None:
    """Cut off the last third."""
    os.truncate(path, path.stat().st_size * 2 // 3)


def index_misses_rows(path: Path) -> None:
    """Remove rows of an index with a known collation from the index alone."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        (root,) = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'index_guid'"
        ).fetchone()
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(
            "UPDATE sqlite_master SET type = 'table', tbl_name = name, sql = 'CREATE TABLE"
            " index_guid(g, i, PRIMARY KEY(g, i)) WITHOUT ROWID' WHERE rootpage = ?",
            (root,),
        )
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DELETE FROM index_guid WHERE i BETWEEN 100 AND 120")
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(
            "UPDATE sqlite_master SET type = 'index', tbl_name = 'metadata_items', sql = 'CREATE"
            " INDEX index_guid ON metadata_items(guid)' WHERE rootpage = ?",
            (root,),
        )


def bad_varint(path: Path) -> None:
    """Overwrite the size of a row with the largest number."""
    content = bytearray(path.read_bytes())
    place = content.index(b"plex://movie/7919word")
    assert content.count(b"plex://movie/7919word") == 1
    content[place - 24 : place - 15] = b"\xff" * 9
    path.write_bytes(content)


def _update(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        assert connection.execute(statement).rowcount > 0


def zeroed_full_text_root(path: Path) -> None:
    """Fill the roots of a full-text index with zeros."""
    _update(path, "UPDATE fts4_tags_segdir SET root = zeroblob(length(root))")


def zeroed_full_text_leaf(path: Path) -> None:
    """Fill one leaf of a full-text index with zeros."""
    _update(
        path,
        "UPDATE fts4_titles_segments SET block = zeroblob(length(block))"
        " WHERE blockid = (SELECT max(leaves_end_block) FROM fts4_titles_segdir)",
    )


def missing_full_text_leaf(path: Path) -> None:
    """Remove one leaf of a full-text index."""
    _update(
        path,
        "DELETE FROM fts4_titles_segments"
        " WHERE blockid = (SELECT max(leaves_end_block) FROM fts4_titles_segdir)",
    )


def _of_header(path: Path, place: int) -> int:
    with path.open("rb") as file:
        return int.from_bytes(file.read(100)[place : place + 4])


def _overwrite(path: Path, place: int, number: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        file.write(number.to_bytes(4))


def freelist_is_longer_than_its_count(path: Path) -> None:
    """Decrease the header's count of free pages by one."""
    count = _of_header(path, 36)
    assert count > 1
    _overwrite(path, 36, count - 1)


def freelist_begins_outside(path: Path) -> None:
    """Point the header to a free page beyond the end."""
    _overwrite(path, 32, path.stat().st_size)


def freelist_has_a_page_twice(path: Path) -> None:
    """Let the first trunk page list its second leaf twice."""
    trunk = (_of_header(path, 32) - 1) * 1024
    content = path.read_bytes()
    assert int.from_bytes(content[trunk + 4 : trunk + 8]) > 1
    _overwrite(path, trunk + 8, int.from_bytes(content[trunk + 12 : trunk + 16]))


DAMAGES: list[Callable[[Path], None]] = [
    garbage_page,
    truncated,
    index_misses_rows,
    bad_varint,
    zeroed_full_text_root,
    zeroed_full_text_leaf,
    missing_full_text_leaf,
    freelist_is_longer_than_its_count,
    freelist_begins_outside,
    freelist_has_a_page_twice,
]


@BOTH
@ANY
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damage_of_a_generation_is_found(
    database: Path, damage: Callable[[Path], None], sqlite: str
) -> None:
    """Damage is found despite the stand-ins, and rebuildable indexes are named."""
    damage(database)
    found = check(database, sqlite)
    assert found.damage
    assert found.not_checked == ""
    if "full_text" in damage.__name__:
        assert found.rebuild


@BOTH
@pytest.mark.parametrize("damage", DAMAGES[-3:], ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("generation", [GENERATIONS["1.42 of 2025"]], ids=["1.42 of 2025"])
def test_damaged_freelist_is_found_where_plex_sqlite_says_ok(
    database: Path, damage: Callable[[Path], None], sqlite: str, tmp_path: Path
) -> None:
    """A damaged freelist is found although Plex's own SQLite does not check free pages."""
    program = tmp_path / "Plex SQLite"
    program.write_text("#!/bin/sh\necho ok\n")
    program.chmod(0o755)
    damage(database)
    assert check_database(str(database), module=sqlite, plex_sqlite=str(program)).damage


@BOTH
@pytest.mark.parametrize("auto_vacuum", ["NONE", "FULL", "INCREMENTAL"])
@pytest.mark.parametrize("page_size", [512, 1024, 4096, 65536])
def test_free_pages_of_a_sound_database_pass(
    tmp_path: Path, page_size: int, auto_vacuum: str, sqlite: str
) -> None:
    """Free pages of a sound database pass with any page size and any auto-vacuum mode."""
    for number, more in enumerate(("", "CREATE VIRTUAL TABLE f USING fts4(t);")):
        path = tmp_path / f"{number}.db"
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.executescript(
                f"PRAGMA page_size = {page_size}; PRAGMA auto_vacuum = {auto_vacuum};"  # noqa: S608
                f"CREATE TABLE a(t); {more}"
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)"
                "INSERT INTO a SELECT randomblob(800) FROM n; DELETE FROM a WHERE rowid % 50;"
            )
        found = check(path, sqlite)
        assert (found.damage, found.not_checked) == ([], "")
