"""The refusals of a pull before it moves anything, and its checks before publication."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
from contextlib import closing
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest
from rig.oracle import rsync_differences, sums_hold
from rig.volume import RECEIPT_FILES, cut_at, left_of_pull, pull

from initpuller.plex.preferences import parse_preferences, with_preferences
from shared.errors import ConfigurationError, IntegrityError
from shared.frames.plan import FRAME

if TYPE_CHECKING:
    from pathlib import Path

    from rig.programs import Agent

SERVER = "Application Support/Plex Media Server"
DATABASE = f"{SERVER}/Plug-in Support/Databases/com.plexapp.plugins.library.db"
PREFERENCES = f"{SERVER}/Preferences.xml"
SAME = "1.40.1.8227-c0dd5a73e"


@pytest.fixture
def library(made: Path, tmp_path: Path) -> Path:
    """Return a copy of the Plex library that a test may change."""
    return shutil.copytree(made, tmp_path / "vm" / "Library", symlinks=True)


def damage(database: Path) -> None:
    """Write garbage into the middle of a file."""
    with database.open("r+b") as file:
        file.seek(database.stat().st_size // 2 // 4096 * 4096)
        file.write(b"\xa5" * 4096)


def test_damaged_database_is_not_moved(agent: Agent, library: Path, target: Path) -> None:
    """A damaged source database exits 12 with path and remedy, and nothing is published."""
    damage(library / DATABASE)
    done = pull(target, agent)
    assert done.code == 12
    assert str(library / DATABASE) in done.reason()
    assert not (target / "Library").exists()
    assert not (target / ".plexodus" / "receipt.json").exists()


def test_damaged_database_ends_the_transfer(agent: Agent, library: Path, target: Path) -> None:
    """A pull does not go on for hours after the agent has found a damaged database."""
    agent.stop()
    agent.start("--rate", "4MB/s")
    damage(library / DATABASE)
    (library / "film.bin").write_bytes(os.urandom(80_000_000))
    done = pull(target, agent)
    assert done.code == 12
    assert str(library / DATABASE) in done.reason()
    frames = [request for request in agent.requests() if "/frames/" in request]
    assert len(frames) < 80_000_000 // FRAME


def test_damaged_database_does_not_stop_plex(agent: Agent, library: Path, target: Path) -> None:
    """A move with a damaged source database ends before the agent is asked to stop Plex."""
    agent.stop()
    agent.settings = target.parent / "agent.toml"
    agent.settings.write_text('stop_command = ["true"]\nstart_command = ["true"]\n')
    agent.start()
    damage(library / DATABASE)
    done = pull(target, agent, PLEXODUS_NO_CUTOVER="0")
    assert done.code == 12, done.text
    assert str(library / DATABASE) in done.reason()
    assert not [request for request in agent.requests() if "POST /v1/cutover" in request]
    assert not (target / "Library").exists()


def test_older_plex_in_the_pod(agent: Agent, target: Path) -> None:
    """An older Plex in the pod exits 12, and is a warning with ``--version-policy warn``."""
    older = "1.40.0.7998-c29d4c0c8"
    done = pull(target, agent, "--plex-version", older)
    assert done.code == 12
    assert f"{older} is older" in done.reason()
    assert not (target / "Library").exists()
    done = pull(target, agent, "--plex-version", older, "--version-policy", "warn")
    assert done.code == 0
    assert f"{older} is older" in done.text


def test_wal_of_a_crash_is_carried_along(agent: Agent, library: Path, target: Path) -> None:
    """Rows that only the -wal has are in the database on the volume, and still in the source."""
    database = library / DATABASE
    script = (
        "import os, sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "connection.execute('PRAGMA journal_mode=WAL')\n"
        "connection.execute('CREATE TABLE seen (id INTEGER)')\n"
        "connection.execute('INSERT INTO seen VALUES (42)')\n"
        "os._exit(0)\n"
    )
    subprocess.run(["python3", "-c", script, database], check=True)
    assert database.with_name(f"{database.name}-wal").stat().st_size > 0
    assert pull(target, agent).code == 0
    assert rsync_differences(library, target / "Library") == []
    with closing(sqlite3.connect(target / "Library" / DATABASE)) as connection:
        assert connection.execute("SELECT id FROM seen").fetchall() == [(42,)]


def test_wal_is_removed_once_plex_was_stopped_cleanly(
    agent: Agent, library: Path, target: Path
) -> None:
    """A -wal that an interrupted run left is removed if Plex was stopped cleanly since."""
    wal = library / f"{DATABASE}-wal"
    wal.write_bytes(bytes(40_000))
    with cut_at("initpuller.volume.publish.publish.prepare"):
        pull(target, agent)
    assert (target / ".plexodus" / "staging" / "Library" / f"{DATABASE}-wal").exists()
    wal.unlink()
    assert pull(target, agent).code == 0
    assert rsync_differences(library, target / "Library") == []
    assert not (target / "Library" / f"{DATABASE}-wal").exists()


def test_preference_that_is_set(agent: Agent, library: Path, target: Path) -> None:
    """Only the preference differs, and receipt, digests and ``sha256sum -c`` match the volume."""
    before = (library / PREFERENCES).read_bytes()
    done = pull(target, agent, "--set-preference", "autoEmptyTrash=0")
    assert done.code == 0, done.text
    old, new = ET.fromstring(before), ET.parse(target / "Library" / PREFERENCES).getroot()
    assert new.attrib == old.attrib | {"autoEmptyTrash": "0"}
    assert (library / PREFERENCES).read_bytes() == before
    changed = rsync_differences(library, target / "Library")
    assert [line.partition(" ")[2] for line in changed] == [PREFERENCES]
    info, was = (target / "Library" / PREFERENCES).stat(), (library / PREFERENCES).stat()
    assert (info.st_mode, info.st_mtime_ns) == (was.st_mode, was.st_mtime_ns)
    assert sums_hold(target)
    receipt = json.loads((target / ".plexodus" / "receipt.json").read_text())
    assert receipt["preferences"] == {"autoEmptyTrash": "0"}
    assert left_of_pull(target) == RECEIPT_FILES


@pytest.mark.parametrize(
    ("depth", "outcome"),
    [
        ("full", "sound, "),
        ("quick", "quick check: indexes were not compared with their tables"),
        ("skip", "not checked, because the check was skipped on request"),
    ],
)
def test_receipt_has_the_outcome_of_the_database_check(
    agent: Agent, target: Path, depth: str, outcome: str
) -> None:
    """The receipt names each source database, and a skipped check is a warning."""
    done = pull(target, agent, "--database-check", depth)
    assert done.code == 0, done.text
    receipt = json.loads((target / ".plexodus" / "receipt.json").read_text())
    assert set(receipt["databases"]) == {"library database", "blobs database"}
    assert all(outcome in found for found in receipt["databases"].values())
    warned = [line["event"] for line in done.log if line["level"] == "warning"]
    assert any("not checked, because" in event for event in warned) == (depth == "skip")


@pytest.mark.parametrize("place", ["publish.edit_file._replace_sum", "publish.publish.prepare"])
def test_killed_after_a_preference_was_set(
    agent: Agent, library: Path, target: Path, place: str
) -> None:
    """A later run without ``--set-preference`` restores the file as it is in the source."""
    with cut_at(f"initpuller.volume.{place}"):
        pull(target, agent, "--set-preference", "autoEmptyTrash=0")
    staged = target / ".plexodus" / "staging" / "Library" / PREFERENCES
    assert staged.read_bytes() != (library / PREFERENCES).read_bytes()
    assert not (target / "Library").exists()
    assert pull(target, agent).code == 0
    assert rsync_differences(library, target / "Library") == []
    assert sums_hold(target)
    assert left_of_pull(target) == RECEIPT_FILES


@pytest.mark.parametrize("setting", ["autoEmptyTrash", "=1", "a b=1", "x=\n", "<x>=1"])
def test_invalid_preference_option_is_refused(setting: str) -> None:
    """A malformed preference is refused before any request."""
    with pytest.raises(ConfigurationError):
        parse_preferences([setting])


def test_identity_is_not_changed() -> None:
    """The server's identity cannot be set, because every client would lose its link to it."""
    with pytest.raises(ConfigurationError, match="identity"):
        parse_preferences(["MachineIdentifier=x"])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('<Preferences a="1" b="2"/>', '<Preferences a="x" b="2"/>'),
        ("<?xml?>\n<Preferences b='2' a='1'/>\n", "<?xml?>\n<Preferences b='2' a=\"x\"/>\n"),
        ('<Preferences b="2"/>', '<Preferences a="x" b="2"/>'),
        ('<Preferences aa="1" b="2"/>', '<Preferences a="x" aa="1" b="2"/>'),
        ("<Preferences/>", '<Preferences a="x"/>'),
    ],
)
def test_only_the_preference_changes(before: str, after: str) -> None:
    """Setting a preference leaves every other byte of the file unchanged."""
    before, after = (text.replace("<?xml?>", '<?xml version="1.0"?>') for text in (before, after))
    assert with_preferences(before.encode(), {"a": "x"}).decode() == after


@pytest.mark.parametrize("value", ['"', "<&>", "\\1", "ä", "'\""])
def test_preference_value_with_xml_syntax_arrives_as_given(value: str) -> None:
    """A value with characters special to XML arrives as given."""
    content = with_preferences(b'<Preferences a="1"/>', {"a": value})
    assert ET.fromstring(content).attrib == {"a": value}


@pytest.mark.parametrize("content", [b"", b"garbage", b"<Other/>", b"<Preferences>", b"\xff"])
def test_file_without_preferences_is_refused(content: bytes) -> None:
    """A file without preferences is refused, not guessed at."""
    with pytest.raises(IntegrityError):
        with_preferences(content, {"a": "x"})
