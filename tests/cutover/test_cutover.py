"""A cutover with a Plex that writes all the time, stopped and started by commands."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest
from rig.cutover.cutovers import events, moved, not_moved, phase, unheard_commit
from rig.oracle import rsync_differences
from rig.programs import Agent, Puller, program
from rig.volume import RECEIPT_FILES, left_of_pull
from rig.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from rig.plex.commands import PlexCommands

LEASE = 3.0
SETTINGS = {"lease_seconds": LEASE, "stop_seconds": 5}


def test_moved_while_it_writes(
    agent: Agent, puller: Puller, plex: PlexCommands, library: Path
) -> None:
    """Plex is stopped once, for the delta, and stays down, and the log has the steps in order."""
    done = puller.pull()
    assert done.code == 0, done.text
    moved(agent, puller, plex, library)
    assert plex.story == ["start", "stop"]
    told = events(agent)
    story = ["pull", "version", "database", "pass", "stop", "stopped", "pass", "committed", "done"]
    assert [event for event in story if event in told] == story
    assert [told.index(event) for event in story[3:6]] == sorted(map(told.index, story[3:6]))
    again = puller.pull()
    assert again.code == 0, again.text


def killed_while_stopped(puller: Puller, plex: PlexCommands) -> None:
    """Kill a puller as soon as Plex has stopped for it."""
    process = puller.begin()
    plex.wait_until(running=False)
    process.kill()
    process.wait()


def test_puller_killed_while_plex_is_stopped(
    agent: Agent, puller: Puller, plex: PlexCommands, library: Path
) -> None:
    """After the lease expires, Plex runs again by itself, and a later pull moves it."""
    killed_while_stopped(puller, plex)
    plex.wait_until(running=True, seconds=LEASE + 5)
    not_moved(agent, puller, plex)
    assert "the lease has expired" in (agent.state / "migration.log").read_text()
    assert puller.pull().code == 0
    moved(agent, puller, plex, library)


def test_killed_puller_comes_back_within_its_lease(
    agent: Agent, puller: Puller, plex: PlexCommands, library: Path
) -> None:
    """Plex runs while the volume is read back, and is stopped again for the delta."""
    killed_while_stopped(puller, plex)
    done = puller.pull()
    assert done.code == 0, done.text
    moved(agent, puller, plex, library)
    assert plex.story == ["start", "stop", "start", "stop"]
    told = [event for event in events(agent) if event != "undone"]  # it takes a while
    assert told[-7:] == ["pass", "stop", "stopped", "unchanged", "pass", "committed", "done"]


def test_agent_killed_while_plex_is_stopped(
    agent: Agent, puller: Puller, plex: PlexCommands, library: Path
) -> None:
    """If the agent is back within the lease, the pull resumes without another stop."""
    process = puller.begin()
    plex.wait_until(running=False)
    agent.kill()
    agent.start()
    done = puller.finished(process)
    assert done.code == 0, done.text
    moved(agent, puller, plex, library)


@pytest.mark.long
def test_both_killed_while_plex_is_stopped(
    agent: Agent, puller: Puller, plex: PlexCommands
) -> None:
    """An agent that starts after the lease's end starts Plex."""
    killed_while_stopped(puller, plex)
    agent.kill()
    time.sleep(LEASE)
    assert not plex.is_running()
    agent.start()
    plex.wait_until(running=True)
    not_moved(agent, puller, plex)


def test_agent_stopped_while_plex_is_stopped_starts_plex(
    agent: Agent, puller: Puller, plex: PlexCommands
) -> None:
    """Stopping the agent starts Plex, because no process would see the lease expire."""
    killed_while_stopped(puller, plex)
    assert agent.stop() == 0
    assert plex.is_running()


def test_plex_does_not_stop(agent: Agent, puller: Puller, plex: PlexCommands) -> None:
    """If Plex does not stop, the pull fails with its own exit code, and Plex was never down."""
    (plex.here / "stubborn").touch()
    done = puller.pull()
    assert done.code == 17, done.text
    assert "did not" in done.reason() or "failed within" in done.reason(), done.reason()
    not_moved(agent, puller, plex)
    assert plex.story.count("start") == 1
    wait_until(lambda: "undone" in events(agent))  # told after the record says it
    assert {"stop", "refused", "undo", "undone", "failed"} <= set(events(agent))


def test_somebody_starts_plex_during_the_cutover(
    agent: Agent, puller: Puller, plex: PlexCommands, library: Path
) -> None:
    """A Plex started during the cutover is stopped again, and its writes arrive."""
    process = puller.begin()
    wait_until(lambda: phase(agent) == "stopped")
    plex.start()
    done = puller.finished(process)
    assert done.code == 0, done.text
    moved(agent, puller, plex, library)
    assert plex.story.count("stop") >= 2


@pytest.mark.long
def test_plex_was_stopped_before(
    agent: Agent, puller: Puller, plex: PlexCommands, library: Path
) -> None:
    """A Plex that was down before is stopped by command, and started if the pull fails."""
    plex.stop()
    process = puller.begin()
    wait_until(lambda: "stop" in plex.story[2:])
    process.kill()
    process.wait()
    plex.wait_until(running=True, seconds=LEASE + 5)
    not_moved(agent, puller, plex)
    assert puller.pull().code == 0
    moved(agent, puller, plex, library)


def test_undo_starts_plex_again(
    agent: Agent, puller: Puller, plex: PlexCommands, tmp_path: Path
) -> None:
    """``undo`` starts Plex after the move, with or without a running agent."""
    assert puller.pull().code == 0
    options = ("--state", agent.state, "--config", agent.settings or "")
    screen = program("plexodus-agent", "status", *options).stdout
    assert "committed" in screen
    assert "is stopped" in screen
    assert "lift the fence" in screen
    assert program("plexodus-agent", "undo", *options).returncode == 0
    assert plex.is_running()
    assert phase(agent) == "idle"
    time.sleep(2)
    assert plex.is_running()
    screen = program("plexodus-agent", "status", *options).stdout
    assert "nothing to undo" in screen
    assert "asked for on the command line" in screen


@pytest.mark.long
def test_started_after_the_move(agent: Agent, puller: Puller, plex: PlexCommands) -> None:
    """Plex of a moved library is stopped again when the agent starts, and the log reports it.

    A unit does not even start: its fence is up (``make test-vm``).
    """
    assert puller.pull().code == 0
    agent.kill()
    plex.start()
    agent.start()
    plex.wait_until(running=False)
    assert "fence" in events(agent)


@pytest.mark.long
def test_second_volume_after_the_move(
    agent: Agent, puller: Puller, plex: PlexCommands, tmp_path: Path
) -> None:
    """A moved library cannot be moved again, because two servers would share one identity."""
    assert puller.pull().code == 0
    (tmp_path / "other").mkdir()
    other = Puller(tmp_path / "other", tmp_path / "other.log", agent.pairing, cutover=True)
    done = other.pull()
    assert done.code == 17, done.text
    assert "moved already" in done.reason()
    assert "plexodus-agent undo" in done.reason()


def test_answer_to_the_commit_is_lost(
    agent: Agent, puller: Puller, plex: PlexCommands, library: Path
) -> None:
    """If the answer to a commit is lost, the puller asks again and transfers nothing."""
    unheard_commit(puller)
    assert phase(agent) == "committed"
    assert not (puller.target / "Library").exists()
    assert json.loads(puller.run("status", "--json").stdout)["phase"] == "committing"
    agent.log.write_bytes(b"")
    done = puller.pull()
    assert done.code == 0, done.text
    assert agent.frames_asked() == []
    moved(agent, puller, plex, library)


@pytest.mark.long
def test_agent_is_lost_after_an_unheard_commit(
    agent: Agent, puller: Puller, plex: PlexCommands, library: Path
) -> None:
    """Without the agent, only an administrator who vouches for Plex can publish."""
    unheard_commit(puller)
    agent.kill()
    assert puller.pull("--no-cutover").code == 0
    assert rsync_differences(library, puller.target / "Library") == []
    assert left_of_pull(puller.target) == RECEIPT_FILES
