"""A Plex that the agent cannot see: its open databases show whether it is stopped."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest
from rig.cutover.cutovers import moved, phase, pull_with_command
from rig.cutover.hidden_plex import HiddenPlex, hidden_plex
from rig.cutover.plex import Killed
from rig.plex.commands import SERVER, agent_with_plex
from rig.plex.reader import opened
from rig.waiting import wait_until

from agent.cutover.context import CutoverContext
from agent.cutover.control import CutoverControl
from agent.plex.service import PlexService, Sight
from shared.errors import CutoverEnded, CutoverRefused
from shared.plex.library import DATABASES
from shared.plex.sqlite_query import Use
from shared.program.exit_codes import ExitCode
from shared.wire.protocol import CutoverRequest

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rig.programs import Agent, Puller

SETTINGS = {"lease_seconds": 30.0, "stop_seconds": 10}
REQUEST = CutoverRequest("a" * 32, "pod")


@pytest.fixture
def plex(tmp_path: Path, library: Path) -> Iterator[HiddenPlex]:
    """Start a Plex that runs unseen, and changes nothing."""
    with hidden_plex(tmp_path / "plex", library / SERVER) as plex:
        yield plex


@pytest.fixture
def agent(
    new_agent: Callable[[Path], Agent], library: Path, plex: HiddenPlex, tmp_path: Path
) -> Agent:
    """Start an agent that has the commands of that Plex."""
    return agent_with_plex(new_agent, library, plex.settings(tmp_path, **SETTINGS))


def is_not_moved(agent: Agent, puller: Puller, plex: HiddenPlex) -> bool:
    """Return whether nothing is published, and Plex runs and is not fenced off."""
    wait_until(plex.is_running, 20)
    is_published = (puller.target / "Library").exists()
    return not is_published and phase(agent) in ("idle", "undoing")


def test_hidden_plex_that_is_stopped_moves(
    agent: Agent, puller: Puller, plex: HiddenPlex, library: Path
) -> None:
    """A stop that works is proven by databases that no process has open."""
    done = puller.pull()
    assert done.code == ExitCode.OK, done.text
    moved(agent, puller, plex, library)
    assert "no open database" in (agent.state / "migration.jsonl").read_text()


def test_stop_command_that_stops_nothing_publishes_no_library_of_a_running_plex(
    agent: Agent, puller: Puller, plex: HiddenPlex
) -> None:
    """A stop command that succeeds without a stop is refused, and names the open database."""
    plex.stops_nothing()
    done = puller.pull()
    assert done.code == ExitCode.CUTOVER, done.text
    assert str(plex.database) in done.reason()
    assert "stop_command" in done.reason()
    assert is_not_moved(agent, puller, plex)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("initpuller.pull.recipe", "_transfer_and_verify"),
        ("initpuller.agent_client.cutover", "CutoverClient.commit"),
    ],
    ids=["before the scan", "before the commit"],
)
def test_hidden_plex_started_by_a_supervisor_is_not_published_while_it_runs(
    agent: Agent, puller: Puller, plex: HiddenPlex, module: str, name: str
) -> None:
    """Plex is started again after its stop, and changes no file: the move is not committed.

    It was killed, so that its ``-wal`` and ``-shm`` are there already when it starts.
    """
    plex.is_killed()
    code, text = pull_with_command(puller, module, name, plex.here / "start")
    assert code in (ExitCode.CUTOVER, ExitCode.SOURCE_CHANGED), text
    assert plex.story.count("stop") == 3, text
    assert is_not_moved(agent, puller, plex)


def test_reader_of_the_database_of_a_hidden_plex_prevents_the_move(
    agent: Agent, puller: Puller, plex: HiddenPlex
) -> None:
    """A program that reads the database might be Plex, so the stop is refused."""
    with opened(plex.database):
        done = puller.pull()
        assert done.code == ExitCode.CUTOVER, done.text
        assert "Close other programs" in done.reason()
        assert is_not_moved(agent, puller, plex)


class Unseen(PlexService):
    """A Plex that two commands stop and start, of which nothing is ever seen."""

    def __init__(self, *, is_seen: bool = False) -> None:
        self.runs, self._is_seen = True, is_seen

    def is_visible(self) -> bool:
        """Return whether its processes would be seen."""
        return self._is_seen

    def may_run(self) -> bool:
        """Return True, because that cannot be known."""
        return True

    def look(self) -> Sight:
        """Return that no process is seen."""
        return Sight.GONE

    def left(self) -> list[str]:
        """Return no remaining processes."""
        return []

    def stop(self, _seconds: float, _ending: threading.Event) -> None:
        """Stop at once."""
        self.runs = False

    def start(self) -> None:
        """Start at once."""
        self.runs = True

    def check_fence(self, _path: str) -> None:
        """Accept every fence."""


class Databases:
    """A folder with a database, and what a look at its locks says."""

    def __init__(self, place: Path) -> None:
        self.state, self.folder = place / "state", place / "databases"
        self.state.mkdir()
        self.folder.mkdir()
        (self.folder / DATABASES[0]).touch()
        self.found: Use | OSError = Use.NONE
        self.plex = Unseen()

    def control(self) -> CutoverControl:
        """Return the control that takes the steps, of a new process."""
        context = CutoverContext(
            60, 5, lambda *_: None, database_folder=lambda: str(self.folder),
            find_use=self._look, has_cold=lambda _: True,
        )  # fmt: skip
        return CutoverControl(str(self.state), self.plex, context)

    def _look(self, path: str) -> Use:
        assert path == str(self.folder / DATABASES[0])
        if isinstance(self.found, OSError):
            raise self.found
        return self.found


@pytest.fixture
def databases(tmp_path: Path) -> Databases:
    """Return the databases of a Plex that is never seen, closed."""
    return Databases(tmp_path)


def failure(number: int) -> OSError:
    """Return the system's error of this number."""
    return OSError(number, os.strerror(number))


def test_other_readers_of_a_visible_plex_are_tolerated(databases: Databases) -> None:
    """The agent sees that Plex is stopped, so another program may have its databases open."""
    databases.plex, databases.found = Unseen(is_seen=True), Use.OTHERS
    control = databases.control()
    control.begin(REQUEST)
    assert control.is_plex_stopped()
    assert control.commit(REQUEST.id, "b" * 64).phase == "committed"


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP])
def test_database_that_no_sqlite_can_lock_moves(databases: Databases, number: int) -> None:
    """No Plex can have a database open without a lock on its ``-shm``."""
    databases.found = failure(number)
    control = databases.control()
    control.begin(REQUEST)
    assert control.is_plex_stopped()
    assert control.commit(REQUEST.id, "b" * 64).phase == "committed"


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (Use.OTHERS, "Plex, or another program, has this database open"),
        (Use.OURS, "the agent is checking this database"),
        (failure(errno.EACCES), r"cannot find out .*\(Permission denied\)"),
        (failure(errno.ENOLCK), r"cannot find out .*\(No locks available\)"),
    ],
)
def test_missing_proof_of_a_hidden_stop_starts_plex_again(
    databases: Databases, found: Use | OSError, told: str
) -> None:
    """A stop that cannot be proven is refused; one that cannot be proven later is undone."""
    databases.found = found
    with pytest.raises(CutoverRefused, match=told):
        databases.control().begin(REQUEST)
    assert databases.plex.runs

    later = Databases(databases.folder)
    control = later.control()
    control.begin(REQUEST)
    later.found = found
    assert not control.is_plex_stopped()
    with pytest.raises(CutoverEnded, match=told):
        control.commit(REQUEST.id, "b" * 64)
    assert later.plex.runs
    assert control.standing().phase == "idle"


def test_missing_folder_of_databases_proves_no_stop(databases: Databases) -> None:
    """A library that is not mounted at the moment may still be in use by a hidden Plex."""
    control = databases.control()
    control.begin(REQUEST)
    databases.folder.rename(databases.folder.with_name("elsewhere"))
    assert not control.is_plex_stopped()
    with pytest.raises(CutoverEnded, match="No such file"):
        control.commit(REQUEST.id, "b" * 64)
    assert databases.plex.runs


def test_other_process_that_ends_a_commit_proves_the_stop_too(databases: Databases) -> None:
    """An agent is killed at the fence, and Plex is started: its last command does not commit."""
    control = databases.control()
    control.begin(REQUEST)
    with patch.object(control.fence, "put_up", side_effect=Killed), pytest.raises(Killed):
        control.commit(REQUEST.id, "b" * 64)
    assert control.standing().phase == "committing"
    databases.found = Use.OTHERS
    context = CutoverContext(60, 5, lambda *_: None, find_use=lambda _: Use.OTHERS)
    undo = CutoverControl(str(databases.state), databases.plex, context)
    with pytest.raises(CutoverEnded, match="has this database open"):
        undo.lift("the agent has ended", committed=False)
    assert databases.plex.runs
    assert undo.standing().phase == "idle"
