"""``paths``: where Plex looks for media, whether it exists there, and what to change."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rig.programs import program
from rig.volume import fingerprint

from bench.plexlibrary import LibraryShape, make_library
from initpuller.plex.paths import Mapping, mapped, parse_mapping
from shared.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

DATABASE = (
    "Library/Application Support/Plex Media Server/Plug-in Support/Databases/"
    "com.plexapp.plugins.library.db"
)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Return a volume with a Plex library of films, shows and music below /srv/media."""
    make_library(tmp_path / "config" / "Library", LibraryShape(300, 8_000_000, 2_000_000))
    return tmp_path / "config"


def media_files(config: Path) -> list[str]:
    """Return every file in the database, read without our code."""
    with closing(sqlite3.connect(f"file:{config / DATABASE}?immutable=1", uri=True)) as connection:
        rows = connection.execute("SELECT file FROM media_parts WHERE file LIKE '/%'").fetchall()
    return [path for (path,) in rows]


def make_media(config: Path, root: Path) -> list[Path]:
    """Make all of them below ``root`` instead of /srv/media."""
    made = [root / path.removeprefix("/srv/media/") for path in media_files(config)]
    for path in made:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return made


def look(config: Path, *options: str) -> tuple[int, list[dict[str, object]]]:
    """Return exit code and sections, and require that nothing on the volume changed."""
    before = fingerprint(config)
    done = program("plexodus-puller", "paths", "--target", config, "--json", *options, check=False)
    assert fingerprint(config) == before
    return done.returncode, json.loads(done.stdout)


def test_media_at_another_place(config: Path, tmp_path: Path) -> None:
    """With a mapping every file is found, and the page lists folders to add and remove."""
    made = make_media(config, tmp_path / "media")
    code, sections = look(config, f"--map=/srv/media={tmp_path}/media")
    assert code == 0
    assert {section["name"] for section in sections} == {"Movies", "TV Shows", "Music"}
    assert sum(int(str(section["found"])) for section in sections) == len(made) > 100
    page = program(
        "plexodus-puller", "paths", "--target", config, "--map", f"/srv/media={tmp_path}/media"
    ).stdout
    assert f"/srv/media/Movies -> {tmp_path}/media/Movies is there" in page
    assert f"add {tmp_path}/media/Movies; scan; then" in page
    assert "remove /srv/media/Movies." in page


def test_one_file_is_missing(config: Path, tmp_path: Path) -> None:
    """A missing file is named with its section, and the exit code reports it."""
    gone = make_media(config, tmp_path / "media")[0]
    gone.unlink()
    code, sections = look(config, f"--map=/srv/media={tmp_path}/media")
    assert code == 12
    assert [section["missing"] for section in sections if section["missing"]] == [[str(gone)]]


def test_media_is_nowhere(config: Path) -> None:
    """Without a mapping the old paths are checked, and the page advises a mount or a mapping."""
    code, sections = look(config)
    assert code == 12
    assert all(section["found"] == 0 for section in sections)
    page = program("plexodus-puller", "paths", "--target", config, check=False).stdout
    assert "--map" in page
    assert "/srv/media/Movies is not there" in page


def test_media_at_the_old_paths(config: Path, tmp_path: Path) -> None:
    """If media is at the old paths, nothing has to change."""
    root = tmp_path / "as before"
    make_media(config, root)
    with closing(sqlite3.connect(config / DATABASE)) as connection:
        connection.create_collation("icu_root", lambda one, other: (one > other) - (one < other))
        for table, column in (("section_locations", "root_path"), ("media_parts", "file")):
            connection.execute(
                f"UPDATE {table} SET {column} = replace({column}, '/srv/media', ?)",  # noqa: S608
                (str(root),),
            )
        connection.commit()
    page = program("plexodus-puller", "paths", "--target", config).stdout
    assert page.count("nothing is to be changed") == 3


def test_volume_without_plex(tmp_path: Path) -> None:
    """A volume without Plex exits 2, and an unreadable database exits 13."""
    assert program("plexodus-puller", "paths", "--target", tmp_path, check=False).returncode == 2
    (tmp_path / DATABASE).parent.mkdir(parents=True)
    (tmp_path / DATABASE).write_text("no database")
    assert program("plexodus-puller", "paths", "--target", tmp_path, check=False).returncode == 13


@pytest.mark.parametrize("text", ["", "/a", "a=/b", "/a=b", "=/b", "/a="])
def test_invalid_mapping_is_refused(text: str) -> None:
    """Both paths of a mapping must be absolute."""
    with pytest.raises(ConfigurationError):
        parse_mapping(text)


_names = st.from_regex(r"[a-z]{1,3}", fullmatch=True)
_paths = st.lists(_names, min_size=1, max_size=4).map(lambda names: "/" + "/".join(names))


@given(_paths, _paths, _paths)
def test_only_whole_names_are_mapped(old: str, new: str, path: str) -> None:
    """Paths below the folder are mapped, a name that only begins alike is not."""
    mapping = [Mapping(old, new)]
    assert mapped(old, mapping) == new
    assert mapped(f"{old}/x", mapping) == f"{new}/x"
    assert mapped(f"{old}x", mapping) == f"{old}x"
    if not f"{path}/".startswith(f"{old}/"):
        assert mapped(path, mapping) == path


def test_longest_mapping_decides() -> None:
    """In whichever order they are given."""
    both = [Mapping("/mnt", "/a"), Mapping("/mnt/films", "/b")]
    for mappings in (both, both[::-1]):
        assert mapped("/mnt/films/x", mappings) == "/b/x"
        assert mapped("/mnt/tv/x", mappings) == "/a/tv/x"
