"""A Plex that takes longer to stop than anyone waits for it: it is started after that, not before.

The stand-in is a container's: killing the client of its engine ends nothing, and an order to start
one that is still stopping does nothing.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from rig.plex.commands import only_plex
from rig.programs import Agent, Puller
from rig.waiting import wait_until

from agent.plex.commands import Commands
from agent.plex.processes import processes_of
from shared.errors import CutoverRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.long

_PORT = 32400
_PLEX = """\
import os, signal, socket, sys, time
end = []
signal.signal(signal.SIGTERM, lambda *_: end.append(1))
listening = socket.socket()
listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listening.bind(("127.0.0.1", 32400))
listening.listen(50)
listening.settimeout(0.1)
while not end:
    try:
        listening.accept()[0].close()
    except TimeoutError:
        pass
time.sleep(float(sys.argv[1]))
"""
_STOP = """\
#!/bin/sh
echo stop >> {here}/story
pid=$(cat {here}/pid)
kill -TERM "$pid"
while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
"""
_FAILING_STOP = """\
#!/bin/sh
echo stop >> {here}/story
kill -TERM "$(cat {here}/pid)"
echo "tried to kill the container, but did not receive an exit event" >&2
exit 1
"""
_START = """\
#!/bin/sh
kill -0 "$(cat {here}/pid)" 2>/dev/null && exit 0
echo start >> {here}/story
setsid python3 {here}/plex.py {seconds} </dev/null >/dev/null 2>&1 &
echo $! > {here}/pid
"""


class Container:
    """A Plex that takes ``seconds`` to stop, with its two commands."""

    def __init__(self, here: Path, seconds: float) -> None:
        self.here = here
        here.mkdir()
        (here / "plex.py").write_text(_PLEX)
        for name, text in (("stop", _STOP), ("start", _START)):
            (here / name).write_text(text.format(here=here, seconds=seconds))
            (here / name).chmod(0o755)

    @property
    def story(self) -> list[str]:
        """Each stop, and each start that found it stopped."""
        return (self.here / "story").read_text().split()

    def settings(self, path: Path) -> Path:
        """A file of settings whose stop_seconds are too few."""
        lines = [f'{name}_command = ["{self.here / name}"]' for name in ("stop", "start")]
        path.write_text("\n".join([*lines, "stop_seconds = 2"]))
        return path

    def has_a_stop_that_fails(self) -> None:
        """Have the stop command order the stop, and fail before it has ended."""
        (self.here / "stop").write_text(_FAILING_STOP.format(here=self.here))

    def end(self) -> None:
        """It is gone."""
        with suppress(OSError, ValueError):
            os.kill(int((self.here / "pid").read_text()), 9)


def listens() -> bool:
    """Return whether something listens for Plex's clients."""
    with socket.socket() as end:
        return end.connect_ex(("127.0.0.1", _PORT)) == 0


@pytest.fixture
def container(tmp_path: Path) -> Iterator[Container]:
    """Start a Plex that takes three times as long to stop as it may."""
    with only_plex():
        container = Container(tmp_path / "container", 6.0)
        try:
            Commands([], [str(container.here / "start")]).start()
            wait_until(listens)
            yield container
        finally:
            container.end()


@pytest.fixture
def agent(
    new_agent: Callable[[Path], Agent], made: Path, container: Container, tmp_path: Path
) -> Agent:
    """Return an agent that can stop it."""
    agent = new_agent(made)
    agent.pair()
    agent.settings = container.settings(tmp_path / "agent.toml")
    agent.start()
    return agent


@pytest.fixture
def puller(tmp_path: Path, agent: Agent, target: Path) -> Puller:
    """Return a puller that has it stopped."""
    return Puller(target, tmp_path / "puller.log", agent.pairing, cutover=True)


def started_after_its_stop(container: Container) -> bool:
    """Return whether it ended and was started after that."""
    return container.story == ["start", "stop", "start"] and listens()


def test_stop_that_ends_after_it_was_given_up(
    agent: Agent, puller: Puller, container: Container
) -> None:
    """A slow stop is refused with the setting's name, and Plex is started after it ended."""
    done = puller.pull()
    assert done.code == 17, done.text
    assert "stop_seconds" in done.reason()
    assert b"undoing" in (agent.state / "cutover.json").read_bytes()
    wait_until(lambda: b'"idle"' in (agent.state / "cutover.json").read_bytes())
    assert started_after_its_stop(container)


def test_stop_that_fails_and_ends_plex_later(
    agent: Agent, puller: Puller, container: Container
) -> None:
    """A stop_command that fails may still end Plex: it is started then, not before."""
    container.has_a_stop_that_fails()
    done = puller.pull()
    assert done.code == 17, done.text
    assert "did not receive an exit event" in done.reason()
    assert b"undoing" in (agent.state / "cutover.json").read_bytes()
    wait_until(lambda: b'"idle"' in (agent.state / "cutover.json").read_bytes())
    assert started_after_its_stop(container)


def test_agent_killed_during_a_slow_stop(
    agent: Agent, puller: Puller, container: Container
) -> None:
    """A restarted agent waits for a stop that it knows only from the record."""
    process = puller.begin()
    wait_until(lambda: "stop" in container.story)
    agent.kill()
    process.kill()
    process.wait()
    agent.start()
    assert container.story == ["start", "stop"]
    wait_until(lambda: started_after_its_stop(container))


def test_agent_ends_during_a_slow_stop(agent: Agent, puller: Puller, container: Container) -> None:
    """An agent that is stopped waits for the slow stop, and then starts Plex."""
    process = puller.begin()
    wait_until(lambda: "stop" in container.story)
    assert agent.stop() == 0
    assert started_after_its_stop(container)
    process.kill()
    process.wait()


def test_stop_command_that_is_not_there(agent: Agent, puller: Puller, container: Container) -> None:
    """A missing stop command is found before anything is copied."""
    (container.here / "stop").chmod(0o644)
    done = puller.pull()
    assert done.code in {12, 17}, done.text
    assert "stop_command cannot be run" in done.reason()
    assert not (puller.target / ".plexodus" / "staging").exists()
    assert listens()
    with pytest.raises(CutoverRefused, match="start_command cannot be run"):
        Commands(["true"], ["/no-such-program"]).check_fence("/no-such-folder/fence")


@pytest.mark.parametrize(
    ("command", "is_plex"),
    [
        (["/usr/lib/plexmediaserver/Plex SQLite", "file:/x.db?mode=ro"], False),
        (["/usr/lib/plexmediaserver/Plex SQLite", "-readonly", "/x.db"], False),
        (["/usr/lib/plexmediaserver/Plex SQLite", "/x.db"], True),
        (["/usr/lib/plexmediaserver/Plex SQLite", "/x-readonly.db"], True),
        (["/usr/lib/plexmediaserver/Plex Media Scanner", "--scan"], True),
        (["Plex Plug-in [x]", "/usr/lib/plexmediaserver/Resources/x"], True),
        (["sh", "/usr/lib/plexmediaserver/start.sh"], True),
        (["/usr/bin/python3.11", "-u", "/usr/lib/plexmediaserver/x.py"], True),
        (["less", "/usr/lib/plexmediaserver/start.sh"], False),
        (["sh", "-c", "ls /usr/lib/plexmediaserver/"], False),
    ],
)
def test_check_beside_the_stop_is_not_plex(
    tmp_path: Path, command: list[str], *, is_plex: bool
) -> None:
    """A process that only reads does not count as Plex, and any other does."""
    process = tmp_path / "7"
    process.mkdir()
    (process / "cmdline").write_bytes("\0".join(command).encode() + b"\0")
    (process / "cgroup").write_text("0::/user.slice\n")
    (process / "stat").write_text("7 (name of it) S 1\n")
    assert bool(processes_of("", str(tmp_path))) is is_plex
