"""A stop that has failed, and ends Plex later: the agent watches Plex, and starts it again."""

from __future__ import annotations

import http.server
import json
import socketserver
import threading
import time
from typing import TYPE_CHECKING

import pytest
from rig.plex.commands import only_plex
from rig.waiting import wait_until

from agent.cutover.context import CutoverContext
from agent.cutover.control import CutoverControl
from agent.plex.commands import Commands
from agent.plex.container import Container
from agent.plex.engine import Engine
from shared.errors import CutoverRefused
from shared.wire.protocol import CutoverRequest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agent.plex.service import PlexService

REQUEST = CutoverRequest("a" * 32, "pod")
WATCHED = 60
"""Seconds after the order to stop in which it may still end Plex."""


class Driven:
    """A cutover whose clock the test sets."""

    def __init__(self, state: Path, plex: PlexService, stop_seconds: float = 5.0) -> None:
        self.now = 1000.0
        context = CutoverContext(60, stop_seconds, lambda *_: None, clock=lambda: self.now)
        state.mkdir()
        self._control = CutoverControl(str(state), plex, context)

    @property
    def phase(self) -> str:
        """The phase of the cutover."""
        return self._control.standing().phase

    def is_refused(self, told: str) -> None:
        """Assert that the stop is refused with these words."""
        with pytest.raises(CutoverRefused, match=told):
            self._control.begin(REQUEST)

    def tend(self, until: float) -> None:
        """Let time pass until so many seconds after the order, with the agent's periodic work."""
        while self.now < 1000.0 + until:
            self.now += 1.0
            self._control.tend()


class EngineServer(socketserver.ThreadingUnixStreamServer):
    """A container engine with one container. It answers each stop with ``status``."""

    daemon_threads = True

    def __init__(self, path: Path, status: int) -> None:
        super().__init__(str(path), _Answers)
        self.status, self.is_up = status, True
        self.orders: list[str] = []


class _Answers(http.server.BaseHTTPRequestHandler):
    server: EngineServer

    def do_GET(self) -> None:
        """Describe the container."""
        state = {"Status": "running", "Running": self.server.is_up}
        self._answer(200, {"Id": "c" * 64, "State": state, "HostConfig": {}})

    def do_POST(self) -> None:
        """Start the container, or refuse to stop it."""
        self.rfile.read(int(self.headers["Content-Length"]))
        verb = self.path.rpartition("/")[2].partition("?")[0]
        self.server.orders.append(verb)
        if verb == "start":
            was_up, self.server.is_up = self.server.is_up, True
            self._answer(304 if was_up else 204, None)
        else:
            self._answer(self.server.status, {"message": "did not receive an exit event"})

    def _answer(self, status: int, body: object) -> None:
        content = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if content:
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Write no log."""


@pytest.fixture
def engine(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[EngineServer]:
    """Serve an engine whose stops fail with the status of the test."""
    with EngineServer(tmp_path / "engine", request.param) as server:
        threading.Thread(target=server.serve_forever).start()
        yield server
        server.shutdown()


@pytest.mark.parametrize("engine", [500, 409, 502], indirect=True)
def test_engine_that_fails_and_ends_plex_later(engine: EngineServer, tmp_path: Path) -> None:
    """A SIGKILL that waits for Plex's disk ends the container at last: it is started again."""
    cutover = Driven(tmp_path / "state", Container(Engine(str(tmp_path / "engine")), "plex"))
    cutover.is_refused("did not receive an exit event")
    cutover.tend(20)
    assert cutover.phase == "undoing"
    engine.is_up = False
    cutover.tend(30)
    assert (cutover.phase, engine.is_up) == ("idle", True)
    assert engine.orders == ["stop", "start", "start"]


@pytest.mark.parametrize("engine", [500], indirect=True)
def test_engine_that_fails_and_does_nothing(engine: EngineServer, tmp_path: Path) -> None:
    """A container that continues to run is watched for a minute, and is left alone after that."""
    cutover = Driven(tmp_path / "state", Container(Engine(str(tmp_path / "engine")), "plex"))
    cutover.is_refused("did not receive an exit event")
    cutover.tend(WATCHED - 1)
    assert cutover.phase == "undoing"
    cutover.tend(WATCHED)
    assert (cutover.phase, engine.is_up) == ("idle", True)


@pytest.mark.parametrize("engine", [400, 401, 403, 404, 405], indirect=True)
def test_engine_that_refuses(engine: EngineServer, tmp_path: Path) -> None:
    """An order that was refused has no later effect, so another pull is soon possible."""
    cutover = Driven(tmp_path / "state", Container(Engine(str(tmp_path / "engine")), "plex"))
    cutover.is_refused("status 40")
    cutover.tend(4)
    assert (cutover.phase, engine.is_up) == ("idle", True)


class Hidden:
    """The commands of a Plex that nobody sees, and whether it runs."""

    def __init__(self, here: Path, stop: str) -> None:
        self._runs = here / "runs"
        self._runs.touch()
        self._story = here / "story"
        start = f"echo start >> {self._story}; touch {self._runs}"
        self.plex = Commands(["sh", "-c", stop], ["sh", "-c", start])

    def ends(self) -> None:
        """End it, as the stop that has failed."""
        self._runs.unlink()

    @property
    def runs(self) -> bool:
        """Whether it runs."""
        return self._runs.exists()


@pytest.fixture
def hidden(tmp_path: Path) -> Iterator[Hidden]:
    """Return a hidden Plex whose stop_command fails at once."""
    with only_plex():
        yield Hidden(tmp_path, "exit 1")


@pytest.mark.parametrize("after", [5, WATCHED - 1])
def test_stop_of_a_hidden_plex_that_fails_and_ends_it_later(
    hidden: Hidden, tmp_path: Path, after: int
) -> None:
    """Nobody sees when it ends, so it is started until the stop can no longer end it."""
    cutover = Driven(tmp_path / "state", hidden.plex)
    cutover.is_refused("the stop_command of the settings failed")
    cutover.tend(after)
    assert cutover.phase == "undoing"
    hidden.ends()
    cutover.tend(WATCHED + 1)
    assert (cutover.phase, hidden.runs) == ("idle", True)


def test_stop_command_that_fails_after_its_time(tmp_path: Path) -> None:
    """A stop that took too long and then failed has not ended: it may end Plex later."""
    with only_plex():
        hidden = Hidden(tmp_path, f"sleep 3; touch {tmp_path}/failed; exit 1")
        cutover = Driven(tmp_path / "state", hidden.plex, stop_seconds=1.0)
        cutover.is_refused("within 1 s")
        cutover.tend(2)
        wait_until((tmp_path / "failed").exists)
        time.sleep(0.5)
        cutover.tend(10)
        assert cutover.phase == "undoing"
        hidden.ends()
        cutover.tend(WATCHED + 1)
    assert (cutover.phase, hidden.runs) == ("idle", True)


def test_stop_command_that_cannot_be_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that is missing has begun nothing, so nothing has to be waited for."""
    with only_plex():
        hidden = Hidden(tmp_path, "")
        plex = Commands(["/no-such-program"], hidden.plex.start_command)
        cutover = Driven(tmp_path / "state", plex)
        monkeypatch.setattr(Commands, "check_fence", lambda *_: None)
        cutover.is_refused("No such file")
        assert cutover.phase == "idle"
