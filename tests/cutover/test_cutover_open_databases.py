"""Databases that are open during and after a cutover, by Plex and by other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rig.oracle import rsync_differences
from rig.plex.commands import SERVER, PlexCommands
from rig.plex.reader import opened
from rig.programs import Puller

from shared.plex.library import DATABASE_FOLDER, DATABASES

if TYPE_CHECKING:
    from rig.programs import Agent

DATABASE = Path(SERVER) / DATABASE_FOLDER / DATABASES[0]


def test_reader_does_not_stop_a_move(puller: Puller, plex: PlexCommands, library: Path) -> None:
    """A program that reads the database is not Plex: the agent has stopped Plex, and proves it."""
    with opened(library / DATABASE):
        done = puller.pull()
        assert done.code == 0, done.text
        assert not plex.is_running()
        assert rsync_differences(library, puller.target / "Library") == []


def test_committed_move_vouches_for_no_later_plex(
    agent: Agent, puller: Puller, library: Path, tmp_path: Path
) -> None:
    """After the move, somebody runs another Plex on the old library: no copy of that one."""
    done = puller.pull()
    assert done.code == 0, done.text
    second = Puller(tmp_path / "second", tmp_path / "second.log", agent.pairing)
    second.target.mkdir()
    with opened(library / DATABASE):
        refused = second.pull()
        assert refused.code == 16, refused.text
        assert not (second.target / "Library").exists()
    assert second.pull().code == 0
