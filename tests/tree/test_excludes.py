"""Files that must never arrive at a Plex, and files that may be left out."""

from __future__ import annotations

import sqlite3
import subprocess
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from rig.oracle import omitted

if TYPE_CHECKING:
    from pathlib import Path

    from rig.programs import Agent, Puller

SERVER = "Application Support/Plex Media Server"
KEPT = (
    "Preferences.xml",
    "Metadata/Movies/a/Cache/poster.jpg",
    "Plug-in Support/Databases/com.plexapp.plugins.library.db",
    "Plug-in Support/Databases/com.plexapp.plugins.library.db-wal",
    "Plug-in Support/Caches/plugin",
    "Logs.txt",
)
REMADE = (
    *("Cache/PhotoTranscoder/1.jpg", "Codecs/libx.so", "Crash Reports/1.dmp", "Diagnostics/1"),
    *("Drivers/d.so", "Logs/Plex Media Server.log", "Updates/1.deb"),
    "Plug-in Support/Databases/com.plexapp.plugins.library.db-2024-03-11",
    "Plug-in Support/Databases/com.plexapp.plugins.library.blobs.db-2024-03-08",
)
PID_FILES = ("plexmediaserver.pid", "Plug-in Support/other.pid")


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """Return a library with one file of each kind, of eleven bytes except what Plex needs."""
    library = tmp_path / "vm" / "Library"
    for name in (*KEPT, *REMADE, *PID_FILES):
        path = library / SERVER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"eleven byte")
    database = library / SERVER / KEPT[2]
    database.unlink()
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE metadata_items (id INTEGER)")
    database.with_name(f"{database.name}-wal").write_bytes(b"eleven byte")
    (library / SERVER / KEPT[0]).write_text('<Preferences MachineIdentifier="m"/>')
    return library


def files(folder: Path) -> set[str]:
    """Return every file below Plex's own folder."""
    top = folder / SERVER
    return {str(path.relative_to(top)) for path in top.rglob("*") if path.is_file()}


def test_pid_file_never_arrives(
    agent: Agent, puller: Puller, library: Path, tmp_path: Path
) -> None:
    """The PID file never arrives, because the new server would wait for the old one."""
    assert puller.pull().code == 0
    assert files(puller.target / "Library") == {*KEPT, *REMADE}
    assert omitted(puller.target) == {f"Library/{SERVER}/{name}": 11 for name in PID_FILES}
    assert puller.run("verify").returncode == 0

    url = f"{agent.url}/plex-library.tar.gz"
    command = f"curl -fsSLk -u x:{agent.token} {url} | tar xz -C {tmp_path}"
    subprocess.run(["bash", "-o", "pipefail", "-c", command], check=True)
    assert files(tmp_path / "Library") == {*KEPT, *REMADE}


def test_what_plex_makes_again_can_stay_away(agent: Agent, puller: Puller, library: Path) -> None:
    """Content that Plex rebuilds is left out with its size; equal names further down arrive."""
    assert puller.pull("--exclude-regenerable").code == 0
    assert files(puller.target / "Library") == set(KEPT)
    left_out = omitted(puller.target)
    assert left_out[f"Library/{SERVER}/Cache"] == 11
    assert len(left_out) == len(REMADE) + len(PID_FILES)


def test_plexs_own_folder_as_the_library(
    library: Path, tmp_path: Path, puller: Puller, agent: Agent
) -> None:
    """The same holds for a library outside of any Application Support."""
    agent.kill()
    agent.library = library / SERVER
    agent.start()
    assert puller.pull("--exclude-regenerable").code == 0
    top = puller.target / "Library" / SERVER
    assert {str(p.relative_to(top)) for p in top.rglob("*") if p.is_file()} == set(KEPT)
