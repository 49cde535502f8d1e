"""A cutover loses no rows, links or times, and never leaves Plex down."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rig.cutover.cutovers import dies, moved, phase, unheard_commit
from rig.cutover.deltas import RACY, racy_seconds
from rig.oracle import rsync_differences
from rig.plex.commands import SERVER
from rig.plex.standin import DATABASE
from rig.volume import FRAME

if TYPE_CHECKING:
    from rig.plex.commands import PlexCommands
    from rig.programs import Agent, Puller

pytestmark = pytest.mark.long

DATABASES = f"{SERVER}/Plug-in Support/Databases"
SETTINGS = {"lease_seconds": 5.0, "stop_seconds": 30}


def rows(databases: Path, copy: Path) -> int:
    """Return how many rows the stand-in has written, including those in the ``-wal``."""
    shutil.copytree(databases, copy)
    with closing(sqlite3.connect(copy / Path(DATABASE).name)) as database:
        [count] = database.execute("SELECT count(*) FROM standin").fetchone()
    return int(count)


def test_rows_in_the_wal_of_a_plex_that_was_killed(
    agent: Agent, puller: Puller, plex: PlexCommands, library: Path, tmp_path: Path
) -> None:
    """A move after an interrupted rehearsal has the -wal that the rehearsal left out."""
    stop = plex.here / "stop"
    stop.write_text(stop.read_text().replace('kill "$pid"', 'kill -9 "$pid"'))
    time.sleep(RACY + 1)
    dies(puller, "initpuller.pull.passes", "Passes.begin", "--rehearse", call=2)
    done = puller.pull()
    assert done.code == 0, done.text
    moved(agent, puller, plex, library)
    there = rows(puller.target / "Library" / DATABASES, tmp_path / "there")
    assert there == rows(library / DATABASES, tmp_path / "here") > 0
    assert ".db-wal moves, too" in (agent.state / "migration.log").read_text()


def test_hard_link_to_a_database(
    agent: Agent, puller: Puller, plex: PlexCommands, library: Path
) -> None:
    """A hard link to a database is another name of the newest content, not of the earlier one."""
    below = library / SERVER / "Metadata"
    (below / "aa.db").write_bytes(os.urandom(50_000))
    (below / "zz").hardlink_to(below / "aa.db")
    time.sleep(RACY)
    done = puller.pull()
    assert done.code == 0, done.text
    moved(agent, puller, plex, library)


def test_xattr_of_a_large_file_is_removed(
    agent: Agent, puller: Puller, plex: PlexCommands, library: Path
) -> None:
    """A removed xattr needs one stop of Plex, and the file is not sent again."""
    large = library / SERVER / "Metadata" / "large"
    large.write_bytes(os.urandom(3 * FRAME))
    os.setxattr(large, "user.x", b"1")
    time.sleep(RACY)
    assert puller.pull("--until", "ready").code == 0
    os.removexattr(large, "user.x")
    done = puller.pull()
    assert done.code == 0, done.text
    moved(agent, puller, plex, library)
    assert plex.story == ["start", "stop"]


def test_snapshot_is_gone_after_an_unheard_commit(
    agent: Agent, puller: Puller, plex: PlexCommands, library: Path
) -> None:
    """A committed agent confirms the commit again, though its snapshot is gone."""
    unheard_commit(puller)
    shutil.rmtree(agent.state / "snapshots")
    agent.kill()
    agent.start()
    done = puller.pull()
    assert done.code == 0, done.text
    moved(agent, puller, plex, library)


def test_something_takes_the_librarys_name_after_an_unheard_commit(
    agent: Agent, puller: Puller, plex: PlexCommands, library: Path
) -> None:
    """Foreign content is set aside on request, and the committed library published."""
    unheard_commit(puller)
    (puller.target / "Library").mkdir()
    done = puller.pull("--on-existing", "set-aside")
    assert done.code == 0, done.text
    moved(agent, puller, plex, library)


@pytest.mark.parametrize("option", [("--rehearse",), ("--until", "ready")])
def test_not_the_move_that_was_about_to_be_committed(
    agent: Agent, puller: Puller, plex: PlexCommands, library: Path, option: tuple[str, ...]
) -> None:
    """A lesser request publishes nothing beside a running Plex, and the next pull moves it."""
    dies(puller, "initpuller.agent_client.cutover", "CutoverClient.commit")
    done = puller.pull(*option)
    assert done.code == 0, done.text
    assert phase(agent) in {"undoing", "idle"}  # it watches Plex for some seconds
    assert plex.is_running()
    receipt = puller.target / ".plexodus" / "receipt.json"
    assert not receipt.exists() or json.loads(receipt.read_text())["rehearsal"]
    done = puller.pull()
    assert done.code == 0, done.text
    moved(agent, puller, plex, library)


@pytest.mark.parametrize("option", [("--rehearse",), ("--until", "ready")])
def test_less_than_what_was_committed(
    agent: Agent, puller: Puller, option: tuple[str, ...]
) -> None:
    """A request for less than was committed is refused with a remedy, and nothing is discarded."""
    unheard_commit(puller)
    done = puller.pull(*option)
    assert done.code == 17, done.text
    assert "Run pull without" in done.text
    assert puller.pull().code == 0
    assert phase(agent) == "committed"


def test_killed_while_what_is_not_wanted_goes(agent: Agent, puller: Puller, library: Path) -> None:
    """After a kill during a removal, the next run transfers no more than without the kill."""
    for number in range(3):
        large = library / SERVER / "Metadata" / f"large{number}"
        large.write_bytes(os.urandom(4 * FRAME))
    time.sleep(racy_seconds(4))
    assert puller.pull("--until", "ready").code == 0
    dies(puller, "initpuller.volume.staging.staging", "prune", "--until", "ready")
    before = len(agent.frames_asked())
    assert puller.pull("--until", "ready").code == 0
    assert len(agent.frames_asked()) - before < 10


def test_killed_puller_has_nothing_read_twice_while_plex_is_down(
    agent: Agent, puller: Puller, plex: PlexCommands, library: Path
) -> None:
    """After a kill of the puller, the delta has the same base, and no file is hashed twice."""
    for number in range(4):
        large = library / SERVER / "Metadata" / f"large{number}"
        large.write_bytes(os.urandom(8 * FRAME))
    time.sleep(racy_seconds(8))
    assert puller.pull("--until", "ready").code == 0
    dies(puller, "initpuller.pull.passes", "Passes.bring")
    before = _read_bytes(agent)
    done = puller.pull()
    assert done.code == 0, done.text
    moved(agent, puller, plex, library)
    assert _read_bytes(agent) - before < 2 * 8 * FRAME


def _read_bytes(agent: Agent) -> int:
    """Return how many bytes a process has read so far (proc(5), rchar)."""
    return int(Path(f"/proc/{agent.pid}/io").read_text().split()[1])


def test_preference_set_and_commit_refused(
    agent: Agent, puller: Puller, plex: PlexCommands, library: Path
) -> None:
    """If a refused commit needs another round, one is enough, also for a changed preference."""
    time.sleep(RACY)
    script = puller.target.with_name("refused.py")
    script.write_text(
        f"""
import subprocess
from initpuller.__main__ import main
from initpuller.agent_client.cutover import CutoverClient
real, calls = CutoverClient.commit, []
async def commit(*args):
    calls.append(1)
    if len(calls) == 1:
        subprocess.run([{str(plex.here / "start")!r}])
    return await real(*args)
CutoverClient.commit = commit
main()
"""
    )
    command = puller.command("--set-preference", "FriendlyName=abcdefgh")
    python = str(Path(command[0]).with_name("python"))
    ended = subprocess.run(
        [python, script, *command[1:]], check=False, capture_output=True, env=puller.environment()
    )
    assert ended.returncode == 0, ended.stderr
    assert plex.story.count("stop") == 2
    changed = puller.target / "Library" / SERVER / "Preferences.xml"
    assert "abcdefgh" in changed.read_text()
    shutil.copy2(library / SERVER / "Preferences.xml", changed)
    assert rsync_differences(library, puller.target / "Library") == []
