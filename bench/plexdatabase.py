"""The SQLite databases of a made-up Plex library, as Plex's own build of SQLite leaves them.

A stock SQLite knows neither the collation `icu_root` nor the tokenizer `collating` nor the module
`spellfix1`. Here the collation is approximated in Python; the full-text tables are filled with a
stock tokenizer and their declaration exchanged afterwards; the spelling tables are written straight
into the schema table. The result fails a plain `PRAGMA integrity_check`, as any database of Plex.
"""

from __future__ import annotations

import functools
import hashlib
import os
import random
import re
import shutil
import sqlite3
import string
import unicodedata
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

LIBRARY = "com.plexapp.plugins.library.db"
BLOBS = "com.plexapp.plugins.library.blobs.db"
NEWEST = 1_710_385_965  # 14 March 2024: the moment the made-up server was stopped
DAY = 86_400

_SCHEMA = Path(__file__).with_name("plex_schema.sql")
_TYPES = {1: "movie", 2: "show", 3: "season", 4: "episode", 8: "artist", 9: "album", 10: "track"}
_GROUP = (  # films, a show, an album; each item: section, type, place of its parent herein, index
    *[(1, 1, -1, 1)] * 4,
    *[(2, 2, -1, 1), (2, 3, 4, 1), *[(2, 4, 5, number) for number in range(1, 7)]],
    *[(2, 3, 4, 2), *[(2, 4, 12, number) for number in range(1, 7)]],
    *[(3, 8, -1, 1), (3, 9, 19, 1), *[(3, 10, 20, number) for number in range(1, 9)]],
)
_SYLLABLES = "an ber cor dal el fen gar hol in jor kel lin mar nor ol pra ros sen tal um ver wes"
_ACCENTED = ("Amélie", "Ångström", "Über", "Čas", "naïve", "éxtase", "eXit", "O'Dell", "[ver]")
_ICU_ORDER = " _-,;:!?.'\"()[]{}@*/\\&#%`^+<=>|~$" + string.digits + string.ascii_lowercase
_ICU_RANK = {ord(char): chr(rank + 1) for rank, char in enumerate(_ICU_ORDER)}

# `pick`, `title` and `prose` are those of `Words`; a + keeps the planner from a column's index.
_BASE = """
WITH RECURSIVE month(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM month WHERE n < 167)
INSERT INTO schema_migrations SELECT printf('%d%02d15000000', 2010 + n / 12, n % 12 + 1), NULL,
  NULL, NULL FROM month;
INSERT INTO accounts(id, name, created_at, updated_at) VALUES(1, 'Owner', 1400000000, 1710000000);
INSERT INTO preferences(name, value) VALUES('LastButlerRun', '1710300000');
"""
_SECTIONS = """
INSERT INTO library_sections(id, name, section_type, language, agent, scanner, uuid)
  VALUES(1, 'Movies', 1, 'en-US', 'tv.plex.agents.movie', 'Plex Movie', digest('s', 1)),
  (2, 'TV Shows', 2, 'en-US', 'tv.plex.agents.series', 'Plex TV Series', digest('s', 2)),
  (3, 'Music', 8, 'en-US', 'tv.plex.agents.music', 'Plex Music', digest('s', 3));
INSERT INTO section_locations(library_section_id, root_path, created_at)
  SELECT id, '/srv/media/' || name, 1400000000 FROM library_sections;
WITH RECURSIVE tag(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM tag WHERE n < 599)
INSERT INTO tags(tag, tag_type, created_at, updated_at)
  SELECT title(), 0 + substr('12456', n % 5 + 1, 1), 1400000000 + n, 1700000000 + n FROM tag;
"""
_ITEM = """
INSERT INTO metadata_items(id, library_section_id, parent_id, metadata_type, "index", guid, hash,
  title, title_sort, user_thumb_url, studio, rating, summary, content_rating, tags_genre, tags_star,
  duration, year, originally_available_at, added_at, created_at, updated_at, changed_at, extra_data)
SELECT :id, id, :parent, :kind, :index, :guid, digest(:guid), :title, replace(:title, 'The ', ''),
  'metadata://posters/' || agent || '_' || digest(:guid, 'posters', 0), title(), pick(100) / 10.0,
  prose(150 + pick(750)), 'PG', 'Drama|Comedy', title() || '|' || title() || '|' || title(),
  pick(8000000), 1950 + pick(70), :added, :added, :added, :added + 86400, pick(10000000),
  'at%3AaddedAt=' || :added || '&at%3Aslug=' || prose(80) FROM library_sections WHERE id = :section;
"""
_ABOUT_ITEMS = """
WITH number(n) AS (VALUES(0), (1), (2), (3), (4), (5), (6), (7), (8))
INSERT INTO taggings(metadata_item_id, tag_id, "index", text, created_at)
  SELECT id, 1 + pick(600), n, title(), added_at FROM metadata_items CROSS JOIN number
  WHERE id > :last AND (n < 3 OR pick(3) > 0);
INSERT INTO media_items(id, library_section_id, section_location_id, metadata_item_id, width,
  height, size, duration, bitrate, container, video_codec, audio_codec, created_at, updated_at)
  SELECT id, library_section_id, library_section_id, id, 1920, 1080, pick(9000000000), duration,
  pick(9000000), CASE metadata_type WHEN 10 THEN 'flac' ELSE 'mkv' END, CASE metadata_type WHEN 10
  THEN NULL ELSE 'h264' END, 'eac3', added_at, updated_at FROM metadata_items
  WHERE id > :last AND +metadata_type IN (1, 4, 10);
INSERT INTO media_parts(id, media_item_id, hash, file, size, duration, created_at, extra_data)
  SELECT media.id, media.id, digest(guid, 'media'), root_path || '/' || title || '/' || media.id
  || '.' || container, media.size, media.duration, added_at, 'ma:indexes=sd&pv:chapters='
  || prose(pick(4000)) FROM media_items AS media CROSS JOIN metadata_items AS item
  ON item.id = metadata_item_id JOIN section_locations AS place ON place.id = section_location_id
  WHERE media.id > :last;
WITH number(n) AS (VALUES(0), (1), (2), (3), (4), (5), (6))
INSERT INTO media_streams(stream_type_id, media_item_id, media_part_id, codec, language, "index",
  bitrate, created_at, extra_data) SELECT min(n, 2) + 1, media_item_id, id, CASE n WHEN 0 THEN
  'h264' WHEN 1 THEN 'eac3' ELSE 'srt' END, 'eng', n, pick(9000000), created_at,
  'ma:bitDepth=8&ma:chromaLocation=left&ma:chromaSubsampling=4%3A2%3A0&ma:codedHeight=1088&ma:'
  || printf('requiredBandwidths=%d%%2C%d%%2C%d', pick(90000), pick(90000), pick(90000))
  FROM media_parts CROSS JOIN number WHERE id > :last AND (n < 2 OR pick(2) > 0);
"""
_WATCH = """
INSERT INTO metadata_item_settings(account_id, guid, view_count, last_viewed_at, created_at,
  updated_at, changed_at) SELECT 1, item.guid, 1 + pick(3), max(added_at + 86400, :since), added_at,
  max(added_at + 86400, :since), pick(10000000) FROM metadata_items AS item
  LEFT JOIN metadata_item_settings AS seen ON seen.guid = item.guid WHERE item.id > :last
  AND +metadata_type IN (1, 4, 10) AND seen.id IS NULL AND pick(5) < 2 LIMIT :most;
INSERT INTO metadata_item_views(account_id, guid, metadata_type, library_section_id, title,
  viewed_at) SELECT 1, guid, metadata_type, library_section_id, title, last_viewed_at
  FROM metadata_item_settings AS seen CROSS JOIN metadata_items USING (guid) WHERE seen.id > :seen;
"""
_BLOB = "INSERT INTO blobs(blob, linked_type, linked_id, blob_type) VALUES(:blob, 'part', :id, 3);"
_REDECLARE = "UPDATE sqlite_master SET sql = :sql WHERE name = :name;"
_SETTINGS = "journal_mode=OFF synchronous=OFF cache_size=-400000"
_DECLARE = "INSERT INTO sqlite_master VALUES('table', :name, :name, 0, :sql);"
_FULL_TEXT = """
INSERT INTO fts4_metadata_titles(fts4_metadata_titles) VALUES('rebuild');
INSERT INTO fts4_metadata_titles_icu(fts4_metadata_titles_icu) VALUES('rebuild');
INSERT INTO fts4_tag_titles(fts4_tag_titles) VALUES('rebuild');
INSERT INTO fts4_tag_titles_icu(docid, tag) SELECT id, tag FROM tags WHERE tag_type <> 5;
"""


class DatabaseCounts(NamedTuple):
    """Counts of `make_databases`: files, and rows of metadata_item_settings, some in the -wal."""

    files: int
    bytes_total: int
    watch_rows: int
    wal_rows: int


def digest(*parts: object) -> str:
    """The SHA-1 under which Plex files the thing these parts name, in hexadecimal digits."""
    text = "/".join(map(str, parts))
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def guid(seed: int, kind: str, number: int) -> str:
    """The plex:// address of an item; its `digest` names the item's bundle."""
    return f"plex://{kind}/{digest(seed, kind, number)[:24]}"


class Words:
    """Titles and prose, from a vocabulary as large as that of everyday speech."""

    def __init__(self, rng: random.Random, size: int) -> None:
        parts = _SYLLABLES.split()
        self.random = rng.random
        words = ["".join(rng.choices(parts, k=rng.randint(1, 4))) for _ in range(3000)]
        self.prose = " ".join(rng.choices(words, k=max(2000, size // 8)))
        firsts = [article + word.title() for word in words for article in ("", "", "", "The ")]
        lasts = [*_ACCENTED, *(word.title() for word in words[:100])]
        halves = zip(rng.choices(firsts, k=20_000), rng.choices(lasts, k=20_000), strict=True)
        self.titles = [" ".join(pair) for pair in halves]

    def pick(self, below: int) -> int:
        """A number from 0 on, cheaply."""
        return int(self.random() * below)

    def title(self) -> str:
        """Two words, some with an article, an accent or punctuation."""
        return self.titles[self.pick(len(self.titles))]

    def text(self, length: int) -> str:
        """A passage of that many ASCII characters."""
        start = self.pick(len(self.prose) - length)
        return self.prose[start : start + length]


@functools.cache
def _icu_key(text: str) -> tuple[str, str, str]:
    decomposed = unicodedata.normalize("NFD", text)
    folded = decomposed.casefold()
    base = "".join(char for char in folded if not unicodedata.combining(char))
    return base.translate(_ICU_RANK), folded, decomposed.swapcase()


def _icu_root(left: str, right: str) -> int:
    """Compare nearly as ICU's root locale does: letters, then accents, then case."""
    first, second = _icu_key(left), _icu_key(right)
    return (first > second) - (first < second)


def _run(connection: sqlite3.Connection, script: str, **values: object) -> None:
    for sql in _statements(script):
        connection.execute(sql, values)


def _statements(script: str) -> Iterator[str]:
    text = ""
    for line in script.splitlines():
        text += "" if line.startswith("--") else line + "\n"
        if sqlite3.complete_statement(text):
            yield text.strip().removesuffix(";")
            text = ""


class _Filler:
    """Adds rows to a made-up database, group by group."""

    def __init__(self, connection: sqlite3.Connection, seed: int, size: int) -> None:
        self.connection, self.seed, self.last = connection, seed, 0
        self.rng = random.Random(f"{seed}/rows")
        self.words = Words(self.rng, min(size // 8, 4 << 20))
        self.made = dict.fromkeys(_TYPES.values(), 0)
        connection.create_collation("icu_root", _icu_root)
        connection.create_function("pick", 1, self.words.pick)
        connection.create_function("title", 0, self.words.title)
        connection.create_function("prose", 1, self.words.text)
        connection.create_function("digest", -1, digest, deterministic=True)

    def group(self) -> None:
        """Add items of all kinds with what belongs to them: 100 kB or so."""
        rows = []
        for number, (section, kind, parent, index) in enumerate(_GROUP, self.last + 1):
            name = _TYPES[kind]
            address = guid(self.seed, name, self.made[name])
            self.made[name] += 1
            row = {"id": number, "section": section, "kind": kind, "index": index, "guid": address}
            row["parent"] = self.last + 1 + parent if parent >= 0 else None
            row["title"] = f"Season {index}" if name == "season" else self.words.title()
            rows.append(row | {"added": NEWEST - 2 * DAY - self.words.pick(2998 * DAY)})
        self.connection.executemany(_ITEM, rows)
        _run(self.connection, _ABOUT_ITEMS, last=self.last)
        self.watch()
        self.last += len(rows)

    def watch(self, *, since: int = 0, most: int = -1) -> int:
        """See some of the items after the last group; return how many have been seen at all."""
        count = "SELECT coalesce(max(id), 0) FROM metadata_item_settings"
        (seen,) = self.connection.execute(count).fetchone()
        _run(self.connection, _WATCH, last=self.last, seen=seen, since=since, most=most)
        return int(self.connection.execute(count).fetchone()[0])

    def blob(self) -> None:
        """A blob of some kilobytes: half of it packed data, half text."""
        self.last, length = self.last + 1, 500 + self.words.pick(5500)
        content = self.rng.randbytes(length) + self.words.text(length).encode()
        _run(self.connection, _BLOB, blob=content, id=self.last)


@dataclass(frozen=True)
class DatabaseShape:
    """How large the library database is to be, in bytes, and its pages."""

    size: int
    page_size: int = 4096
    seed: int = 1


def _build(path: Path, shape: DatabaseShape, *, library: bool) -> None:
    """Make one database: rows first, then what only Plex could have made."""
    everything = list(_statements(_SCHEMA.read_text(encoding="utf-8")))
    late = [sql for sql in everything if "icu_root" in sql or sql.startswith("CREATE TRIGGER")]
    spelling = [sql for sql in everything if "USING spellfix1" in sql]
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for setting in (f"page_size={shape.page_size}", *_SETTINGS.split()):
            connection.execute("PRAGMA " + setting)
        connection.execute("BEGIN")
        for sql in everything:
            if sql not in late and sql not in spelling:
                connection.execute(re.sub(r"tokenize=collating '.*'", "tokenize=unicode61", sql))
        filler = _Filler(connection, shape.seed, shape.size)
        _run(connection, _BASE + _SECTIONS if library else _BASE)
        share = 97 if library else 100  # the rest: the index and full text
        pages = shape.size * share // (100 * shape.page_size)
        while not filler.last or connection.execute("PRAGMA page_count").fetchone()[0] < pages:
            (filler.group if library else filler.blob)()
        _run(connection, _FULL_TEXT + ";\n".join([*late, "PRAGMA writable_schema=ON;"]))
        for sql in everything:
            if sql.startswith("CREATE VIRTUAL"):
                declare = _DECLARE if sql in spelling else _REDECLARE
                _run(connection, declare, name=sql.split()[3], sql=sql)
        connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode=WAL")


def _watch_more(path: Path, seed: int, *, leave_wal: bool) -> tuple[int, int]:
    """Watch what the dated copies do not know; return how many rows there are, and are new."""
    files = [f"{path}{suffix}" for suffix in ("", "-wal", "-shm")] if leave_wal else []
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA wal_autocheckpoint=0")
        filler = _Filler(connection, seed, 0)
        old = filler.watch(most=0)
        connection.execute("BEGIN")
        rows = filler.watch(since=NEWEST - DAY, most=300)
        connection.execute("COMMIT")
        for file in files:
            shutil.copyfile(file, file + ".kept")
    for file in files:  # closing has emptied the -wal into the database
        os.replace(file + ".kept", file)
    return rows, rows - old


def make_databases(
    folder: Path, shape: DatabaseShape, *, dated: int = 0, leave_wal: bool = False
) -> DatabaseCounts:
    """Make the library and the blobs database in an existing folder.

    The library database gets about its size in bytes, the blobs a tenth of it. `dated` copies of
    the former lie beside it, of days before. With `leave_wal` the newest rows of the watch history
    are still in a `-wal`, as after a crash; otherwise all is as after a clean stop.
    """
    library = folder / LIBRARY
    _build(library, shape, library=True)
    _build(folder / BLOBS, replace(shape, size=shape.size // 10), library=False)
    for number in range(dated):
        shutil.copyfile(library, f"{library}-2024-03-{11 - 3 * number:02d}")
    rows, new = _watch_more(library, shape.seed, leave_wal=leave_wal)
    sizes = [file.stat().st_size for file in folder.iterdir()]
    return DatabaseCounts(len(sizes), sum(sizes), rows, new if leave_wal else 0)
