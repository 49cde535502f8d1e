"""A Plex that the agent cannot see: its open databases show whether it is stopped.

It is in a container that hides it, or beside the unit or container that the settings name.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest
from rig.cutover.cutovers import moved, phase, pull_with_command
from rig.cutover.hidden_plex import HiddenPlex, hidden_plex
from rig.cutover.plex import Killed
from rig.plex.commands import SERVER, only_plex
from rig.plex.fake_systemd import FakeSystemd
from rig.plex.reader import opened
from rig.waiting import wait_until

from agent.cutover.context import CutoverContext
from agent.cutover.control import CutoverControl
from agent.plex.container import Container
from agent.plex.engine import HostSettings, Inspected, State
from agent.plex.service import PlexService, Sight
from agent.plex.systemd_unit import SystemdUnit
from shared.errors import CutoverEnded, CutoverRefused
from shared.plex.library import DATABASES
from shared.plex.sqlite_query import Use
from shared.program.exit_codes import ExitCode
from shared.wire.protocol import CutoverRequest

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator
    from pathlib import Path

    from rig.programs import Agent, Puller

SETTINGS = {"lease_seconds": 30.0, "stop_seconds": 10}
REQUEST = CutoverRequest("a" * 32, "pod")


@pytest.fixture
def plex(tmp_path: Path, library: Path) -> Iterator[HiddenPlex]:
    """Start a Plex that runs unseen, and changes nothing."""
    with hidden_plex(tmp_path / "plex", library / SERVER) as plex:
        yield plex


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

    def shows(self, _pid: int) -> bool:
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
            find_use=self._look, find_holder=lambda _: 7, has_cold=lambda _: True,
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
    """An agent is killed at the fence, and Plex is started: the next agent does not commit."""
    control = databases.control()
    control.begin(REQUEST)
    with patch.object(control.fence, "put_up", side_effect=Killed), pytest.raises(Killed):
        control.commit(REQUEST.id, "b" * 64)
    assert control.standing().phase == "committing"
    databases.found = Use.OTHERS
    later = databases.control()
    later.tend()
    assert databases.plex.runs
    assert later.standing().phase == "idle"
    assert "has this database open" in later.standing().why


class OldContainer:
    """An engine with one container, which runs or not. Plex on this library is another one."""

    socket = "/none"

    def __init__(self, *, is_up: bool) -> None:
        self._is_up = is_up

    def inspect(self, _name: str) -> Inspected:
        """Return its description."""
        status = "running" if self._is_up else "exited"
        return Inspected("c" * 64, State(status, running=self._is_up), HostSettings())

    def stop(self, _name: str, _seconds: int) -> None:
        """Stop it at once."""
        self._is_up = False

    def start(self, _name: str) -> None:
        """Start it at once."""
        self._is_up = True

    def update(self, _name: str, _changes: dict[str, Any]) -> None:
        """Accept all settings."""


class Beside:
    """A service of the settings, beside a library with a real database."""

    def __init__(self, place: Path, plex: PlexService) -> None:
        self.state, folder = place / "state", place / "databases"
        folder.mkdir()
        self.database = folder / DATABASES[0]
        self.told: list[str] = []
        context = CutoverContext(
            60, 5, lambda _, about: self.told.append(about),
            database_folder=lambda: str(folder), has_cold=lambda _: True,
        )  # fmt: skip
        self.control = CutoverControl(str(self.state), plex, context)
        with opened(self.database):
            pass

    def refuses(self, told: str = "has this database open") -> bool:
        """Return whether the stop is refused for a database that is open, and nothing is left."""
        with pytest.raises(CutoverRefused, match=told):
            self.control.begin(REQUEST)
        is_vouched_for = self.control.is_plex_stopped()
        return not is_vouched_for and self.control.standing().phase in ("idle", "undoing")

    def commits(self) -> bool:
        """Return whether the stop succeeds and can be committed."""
        self.control.begin(REQUEST)
        is_vouched_for = self.control.is_plex_stopped()
        return is_vouched_for and self.control.commit(REQUEST.id, "b" * 64).phase == "committed"


@pytest.fixture(params=["unit that is down", "container that is down", "another container"])
def beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Beside]:
    """Return a service that is not the Plex of the library."""
    (tmp_path / "state").mkdir()
    systemd = FakeSystemd(tmp_path / "systemd")
    systemd.here.mkdir()
    systemd.make(f"ConditionPathExists=!{tmp_path}/state/fence")
    systemd.ends()
    monkeypatch.setenv("PATH", f"{systemd.here}:{os.environ['PATH']}")
    plex: PlexService = SystemdUnit("plexmediaserver.service")
    if "container" in request.param:
        engine: Any = OldContainer(is_up=request.param == "another container")
        plex = Container(engine, "plex")
    with only_plex():
        yield Beside(tmp_path, plex)


def test_plex_beside_the_service_of_the_settings_does_not_move(beside: Beside) -> None:
    """A service that is down, or is another Plex, proves nothing of the one that runs."""
    with opened(beside.database):
        assert beside.refuses()


def test_plex_that_starts_beside_the_service_of_the_settings_does_not_move(beside: Beside) -> None:
    """The databases are a part of the proof until the commit, in each process of the agent."""
    beside.control.begin(REQUEST)
    with opened(beside.database):
        assert not beside.control.is_plex_stopped()
        with pytest.raises(CutoverEnded, match="has this database open"):
            beside.control.commit(REQUEST.id, "b" * 64)


def test_plex_that_is_down_moves(beside: Beside) -> None:
    """If nobody has the databases open, the move is as any other. The log says what was tested."""
    assert beside.commits()
    [stopped] = [about for about in beside.told if about.startswith("Plex is stopped")]
    assert "no open database" in stopped
    assert ("port" in stopped) is ("container" not in stopped)


@pytest.mark.parametrize("is_plex_first", [True, False])
def test_reader_beside_a_plex_that_is_seen_to_use_its_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_plex_first: bool
) -> None:
    """A reader that came after Plex is tolerated: the agent has seen the end of Plex.

    One that came before is not. It hides who else has the database open.
    """
    (tmp_path / "state").mkdir()
    engine: Any = OldContainer(is_up=True)
    beside = Beside(tmp_path, Container(engine, "plex"))
    with opened(beside.database) as first, opened(beside.database) as second:
        plex = first if is_plex_first else second

        def stop(_name: str, _seconds: int) -> None:
            assert plex.stdin is not None
            plex.stdin.close()
            plex.wait()
            engine._is_up = False

        monkeypatch.setattr(engine, "stop", stop)
        monkeypatch.setattr("agent.plex.container.pids_in", lambda _: {plex.pid})
        monkeypatch.setattr("agent.plex.container.processes_in", lambda _: [])
        assert beside.commits() if is_plex_first else beside.refuses()
