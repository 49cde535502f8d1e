"""Moves of a Plex in a container: stopped by the engine's API, and kept stopped."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING

import pytest
from rig.cutover.cutovers import dies, events, phase
from rig.oracle import rsync_differences, sums_hold
from rig.plex import standin
from rig.plex.commands import SERVER
from rig.plex.engines import IMAGE, NAME, Docker, plex, plex_options, standin_command
from rig.plex.reader import opened
from rig.programs import program
from rig.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rig.plex.engines import Engine
    from rig.programs import Agent, Puller

pytestmark = pytest.mark.platforms
DATABASES = f"{SERVER}/Plug-in Support/Databases"


@pytest.fixture
def agent(engine: Engine, library: Path, new_container_agent: Callable[..., Agent]) -> Agent:
    """Return an agent beside a container that starts whenever it can."""
    engine.run_plex(library.parent, "--restart", "always")
    return new_container_agent()


@pytest.fixture
def puller(agent: Agent, new_puller: Callable[[Agent], Puller]) -> Puller:
    """Return a puller of that agent."""
    return new_puller(agent)


def moved(agent: Agent, engine: Engine, puller: Puller) -> None:
    """Assert that the library has moved, and Plex is stopped."""
    assert phase(agent) == "committed"
    assert not engine.is_running()
    assert rsync_differences(agent.library, puller.target / "Library") == []
    assert sums_hold(puller.target)


def untouched(agent: Agent, puller: Puller) -> None:
    """Assert that nothing has changed on the VM since the move."""
    assert rsync_differences(agent.library, puller.target / "Library") == []


def restart_policy(engine: Engine) -> str:
    """Return the restart policy of Plex's container."""
    return str(engine.inspect()["HostConfig"]["RestartPolicy"]["Name"])


def test_move_stops_the_container(agent: Agent, engine: Engine, puller: Puller) -> None:
    """The library arrives whole, found by itself, with a database that was closed in order."""
    done = puller.pull()
    assert done.code == 0, done.text
    moved(agent, engine, puller)
    assert not list((agent.library / DATABASES).glob("*-wal"))


def test_reader_beside_a_container_that_is_seen(
    agent: Agent, engine: Engine, puller: Puller
) -> None:
    """The agent has seen this container use the database, and so tolerates a program beside it."""
    with opened(agent.library / SERVER / standin.DATABASE):
        done = puller.pull()
        assert done.code == 0, done.text
        moved(agent, engine, puller)
    told = (agent.state / "migration.jsonl").read_text()
    assert f"the container {NAME} does not run, no process in it, " in told
    assert "no open database" not in told


def test_plex_in_a_container_that_the_settings_do_not_name(
    engine: Engine,
    library: Path,
    new_container_agent: Callable[..., Agent],
    new_puller: Callable[[Agent], Puller],
) -> None:
    """The container of the settings is an old one: nothing is published beside the real Plex."""
    engine.run_plex(library.parent)
    engine.run("rename", NAME, "another")
    try:
        engine.run("create", *plex_options(library.parent), IMAGE, *plex())
        puller = new_puller(new_container_agent())
        done = puller.pull()
        assert done.code == 17, done.text
        assert "has this database open" in done.reason()
        assert not (puller.target / "Library").exists()
        assert "another" in engine.run("ps", "--format", "{{.Names}}")
    finally:
        engine.run("rm", "--force", "another")


def test_start_by_hand_after_the_move(agent: Agent, engine: Engine, puller: Puller) -> None:
    """Nothing runs in Docker's container, even without an agent; Podman's is stopped at once."""
    assert puller.pull().code == 0
    if isinstance(engine, Docker):
        agent.kill()
    engine.run("start", NAME)
    engine.wait_until(running=False)
    if isinstance(engine, Docker):
        untouched(agent, puller)
    else:
        assert "fence" in events(agent)


def test_boot_after_the_move(agent: Agent, engine: Engine, puller: Puller) -> None:
    """A container with the policy 'always' does not start with the engine, without any agent."""
    if not isinstance(engine, Docker):
        pytest.skip("Podman starts no container at boot but by a unit that the user enables")
    assert puller.pull().code == 0
    agent.kill()
    engine.end()
    engine.start()
    time.sleep(3)  # the engine starts containers right after its own start
    assert not engine.is_running()
    untouched(agent, puller)


def test_container_created_anew_after_the_move(
    agent: Agent, engine: Engine, puller: Puller
) -> None:
    """A new container of the same name, as from an update of the image, is stopped for good."""
    assert puller.pull().code == 0
    engine.run("rm", NAME)
    engine.create(agent.library.parent, "--restart", "always")
    engine.wait_until(running=False)
    if isinstance(engine, Docker):
        wait_until(lambda: restart_policy(engine) == "no")
        agent.kill()
        engine.run("start", NAME)
        engine.wait_until(running=False)


def test_undo_after_the_move(agent: Agent, engine: Engine, puller: Puller) -> None:
    """Plex runs again, and its container has its own restart policy and no limit."""
    assert puller.pull().code == 0
    settings = str(agent.settings)
    undo = program("plexodus-agent", "undo", "--state", agent.state, "--config", settings)
    assert "Plex may run on this machine" in undo.stdout
    engine.wait_until(running=True)
    assert restart_policy(engine) == "always"
    assert (engine.inspect()["HostConfig"].get("PidsLimit") or -1) != 1


def test_puller_killed_while_plex_is_stopped(agent: Agent, engine: Engine, puller: Puller) -> None:
    """The lease expires, and the container runs again as before."""
    dies(puller, "initpuller.agent_client.cutover", "CutoverClient.commit")
    engine.wait_until(running=True, seconds=60)
    wait_until(lambda: phase(agent) == "idle")
    assert restart_policy(engine) == "always"
    assert not (puller.target / "Library").exists()


def test_agent_killed_while_plex_is_stopped(agent: Agent, engine: Engine, puller: Puller) -> None:
    """The agent's next start, or the unit's ExecStopPost, starts the container."""
    dies(puller, "initpuller.agent_client.cutover", "CutoverClient.commit")
    agent.kill()
    assert not engine.is_running()
    elsewhere = ("--state", agent.state, "--config", "/no-such-file")
    program("plexodus-agent", "undo", "--unless-committed", *elsewhere)
    engine.wait_until(running=True)


def test_plex_that_does_not_stop_by_itself(
    engine: Engine,
    library: Path,
    new_container_agent: Callable[..., Agent],
    new_puller: Callable[[Agent], Puller],
) -> None:
    """The engine kills it after stop_seconds, and its -wal moves, too."""
    deaf = ["/bin/sh", "-c", "trap '' TERM; \"$@\" & wait", "deaf", *standin_command()]
    engine.run_plex(library.parent, command=deaf)
    agent = new_container_agent(2)
    puller = new_puller(agent)
    done = puller.pull()
    assert done.code == 0, done.text
    moved(agent, engine, puller)
    assert list((puller.target / "Library" / DATABASES).glob("*-wal"))


def test_container_that_ends_with_its_stop(
    engine: Engine,
    library: Path,
    new_container_agent: Callable[..., Agent],
    new_puller: Callable[[Agent], Puller],
) -> None:
    """A container that the engine would remove is never stopped."""
    engine.run_plex(library.parent, "--rm")
    agent = new_container_agent()
    done = new_puller(agent).pull()
    assert done.code != 0
    assert "--rm" in done.text
    assert engine.is_running()
    engine.run("stop", NAME)


def test_container_that_is_not_there(engine: Engine, tmp_path: Path) -> None:
    """The agent names container and setting."""
    settings = tmp_path / "agent.toml"
    settings.write_text(f'container = "nobody"\nengine_socket = "{engine.socket}"\n')
    done = program("plexodus-agent", "preflight", "--config", settings, check=False)
    assert done.returncode != 0
    assert "nobody" in done.stderr
    assert "'container' in the agent's settings" in done.stderr


def test_second_container_runs(agent: Agent, engine: Engine, puller: Puller, made: Path) -> None:
    """A Plex in another container, with a library of its own, is left alone."""
    other = agent.library.parent.with_name("other")
    shutil.copytree(made, other / "Library", symlinks=True)
    options = [each if each != NAME else "other" for each in plex_options(other)]
    engine.run("run", "--detach", *options, IMAGE, *plex())
    try:
        done = puller.pull()
        assert done.code == 0, done.text
        moved(agent, engine, puller)
        running = engine.run("inspect", "--format", "{{.State.Running}}", "other")
        assert running.strip() == "true"
    finally:
        engine.run("rm", "--force", "other")
