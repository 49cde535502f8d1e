"""The real programs, as their users start them: processes, sockets, exit codes."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from dataclasses import KW_ONLY, dataclass, field
from http.client import HTTPSConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec

from agent.server.credentials import make_pairing
from rig import forked
from rig.ports import reserve_port
from shared.native import SWITCH
from shared.wire.pairing import parse_pairing
from shared.wire.protocol import METRICS, SNAPSHOTS, Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_BIN = Path(sys.executable).parent
_FRAME = re.compile(r"/frames/(\d+)\.")
_START_SECONDS = 20.0


def clean_environment() -> dict[str, str]:
    """Return the environment with no ``PLEXODUS_`` variable but the accelerator's switch."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PLEXODUS_") or name == SWITCH
    }


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return the JSON lines of a program's stderr, without torn and foreign lines."""
    lines = []
    for line in path.read_text(errors="replace").splitlines():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return lines


def program(
    name: str,
    *arguments: str | Path,
    check: bool = True,
    environment: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run one of our programs to its end."""
    return subprocess.run(
        [_BIN / name, *arguments],
        check=check,
        capture_output=True,
        text=True,
        env=clean_environment() | (environment or {}),
    )


def _start(
    command: list[str | Path],
    log: BinaryIO,
    usual: dict[str, str],
    environment: dict[str, str] | None,
) -> subprocess.Popen[bytes]:
    """Start a program with all of its output in ``log``.

    One with an ``environment`` beyond the usual gets an interpreter of its own, which may import
    other things.
    """
    if environment or Path(command[0]).name not in forked.MODULES:
        variables = usual | (environment or {})
        return subprocess.Popen(command, stdout=log, stderr=log, env=variables)
    return forked.start(command, log, usual)


class AgentEnded(Exception):
    """An agent ended before it listened."""


@dataclass
class Agent:
    """One agent with its state folder, which can be killed and started again."""

    state: Path
    library: Path
    log: Path
    port: int = field(default_factory=reserve_port)
    _: KW_ONLY
    address: str = "127.0.0.1"
    pairing: str = ""
    """The string that :meth:`pair` printed last."""
    settings: Path | None = None
    """The file that it reads them from, if there is one."""
    tells_library: bool = True
    """Whether the command line names the library, or the settings do."""
    before: Sequence[str | Path] = ()
    """Words in front of its command: a program that starts it, such as in another namespace."""
    _process: subprocess.Popen[bytes] | None = None

    def pair(self, port: int | None = None) -> str:
        """Return a new pairing string, which names ``port`` (of a proxy) if given.

        It calls what ``plexodus-agent pair`` calls, because a process takes half a second of CPU.
        """
        self.pairing = str(make_pairing(str(self.state), self.address, port or self.port))
        return self.pairing

    def start(self, *options: str | Path, environment: dict[str, str] | None = None) -> None:
        """Start serving with these ``options``, and wait until it listens."""
        with self.log.open("ab") as log:
            command = [
                *self.before,
                _BIN / "plexodus-agent",
                "serve",
                "--state",
                self.state,
                "--listen",
                f"{self.address}:{self.port}",
                *(("--library", self.library) if self.tells_library else ()),
                *(("--config", self.settings) if self.settings else ()),
                *options,
            ]
            self._process = _start(command, log, clean_environment(), environment)
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise AgentEnded(self.log.read_text())
            with socket.socket() as probe:
                if probe.connect_ex((self.address, self.port)) == 0:
                    return
            time.sleep(0.02)
        raise TimeoutError(self.log.read_text())

    def kill(self) -> None:
        """Send SIGKILL and wait."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """Send SIGTERM, and return the exit code."""
        return self._end(signal.SIGTERM)

    @property
    def pid(self) -> int:
        """The process id of the running agent."""
        assert self._process is not None
        return self._process.pid

    @property
    def ended(self) -> int | None:
        """Return its exit code if it has ended by itself; None if it runs, or was ended."""
        return None if self._process is None else self._process.poll()

    @property
    def url(self) -> str:
        """Return its address without a path."""
        return f"https://{self.address}:{self.port}"

    @property
    def token(self) -> str:
        """Return the token of the last :meth:`pair`."""
        return parse_pairing(self.pairing).token

    def scan(self) -> Snapshot:
        """Request a snapshot over HTTP."""
        answer = self.ask("POST", SNAPSHOTS, b'{"kind":"cold"}')
        return msgspec.json.decode(answer, type=Snapshot)

    def get(self, path: str) -> bytes:
        """Return the body of the response for ``path``."""
        return self.ask("GET", path)

    def ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """Return the body of a successful response."""
        with closing(self.connect()) as http:
            try:
                http.request(method, path, body, {"Authorization": f"Bearer {self.token}"})
                response = http.getresponse()
            except OSError as error:
                error.add_note(self.log.read_text())
                raise
            content = response.read()
            assert response.status in {200, 201, 204}, content
            return content

    def connect(self, source: str = "127.0.0.1") -> HTTPSConnection:
        """Return a connection that trusts this agent, from this local address."""
        trust = ssl.create_default_context(cafile=self.state / "agent.crt")
        trust.check_hostname = False
        return HTTPSConnection(
            self.address, self.port, context=trust, timeout=60, source_address=(source, 0)
        )

    def frames_asked(self) -> list[int]:
        """Return the numbers of requested frames, from the agent's own request log."""
        return [int(found[1]) for each in self._logged() if (found := _FRAME.search(each))]

    def requests(self) -> list[str]:
        """Return method and path of each request, from the agent's own log.

        A running agent logs a request when its handler has returned, which is later than the
        client has its response or has hung up.
        """
        deadline = time.monotonic() + _START_SECONDS
        while self._process is not None and b"_requests_running 1.0\n" not in self.get(METRICS):
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)
        return [each for each in self._logged() if each != f"GET {METRICS}"]

    def _logged(self) -> list[str]:
        return [
            f"{line['method']} {line['path']}"
            for line in read_log(self.log)
            if line.get("event") == "request"
        ]

    def _end(self, number: signal.Signals) -> int:
        if self._process is None:
            return 0
        self._process.send_signal(number)
        code = self._process.wait(timeout=90)
        self._process = None
        return code


@dataclass
class Finished:
    """The result of a puller."""

    code: int
    log: list[dict[str, Any]]
    text: str
    """All of stdout and stderr."""

    def reason(self) -> str:
        """Return the text of the last ``failed`` line; empty without one."""
        said = [str(line["reason"]) for line in self.log if line.get("event") == "failed"]
        return said[-1] if said else ""

    def kinds(self) -> list[str]:
        """Return the class of the error in each ``failed`` line."""
        return [str(line["kind"]) for line in self.log if line.get("event") == "failed"]


@dataclass
class Puller:
    """Runs of the puller onto one target."""

    target: Path
    log: Path
    pairing: str
    cutover: bool = False
    """Whether there is a Plex that the agent can stop."""

    def command(self, *options: str | Path) -> list[str | Path]:
        """Return the command line of ``pull``."""
        return [_BIN / "plexodus-puller", "pull", "--target", self.target, *options]

    def environment(self) -> dict[str, str]:
        """Return the environment of ``pull`` with the pairing."""
        no_cutover = {} if self.cutover else {"PLEXODUS_NO_CUTOVER": "1"}
        return clean_environment() | {"PLEXODUS_PAIRING": self.pairing} | no_cutover

    def pull(
        self, *options: str | Path, timeout: float = 120, environment: dict[str, str] | None = None
    ) -> Finished:
        """Run a pull to its end."""
        process = self.begin(*options, environment=environment)
        process.wait(timeout=timeout)
        return self.finished(process)

    def begin(
        self, *options: str | Path, environment: dict[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a pull, whose output replaces the content of :attr:`log`."""
        with self.log.open("wb") as log:
            return _start(self.command(*options), log, self.environment(), environment)

    def finished(self, process: subprocess.Popen[bytes]) -> Finished:
        """Return the result of ``process``."""
        code = process.wait(timeout=60)
        return Finished(code, read_log(self.log), self.log.read_text(errors="replace"))

    def run(self, command: str, *options: str | Path) -> subprocess.CompletedProcess[str]:
        """Run another command of the puller on the same target, such as ``status``."""
        return subprocess.run(
            [_BIN / "plexodus-puller", command, "--target", self.target, *options],
            check=False,
            capture_output=True,
            text=True,
            env=clean_environment(),
        )


@contextmanager
def running(agent: Agent) -> Iterator[Agent]:
    """Start ``agent``, and kill it at the end."""
    agent.start()
    try:
        yield agent
    finally:
        agent.kill()
