"""A client of Docker's Engine API, which Podman offers, too.

Source: Docker's reference of its Engine API. Paths without a version mean the
version that the engine prefers.
"""

from __future__ import annotations

import http.client
import socket
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import msgspec

from agent.host.state_owner import as_program_user
from agent.plex.service import BY_HAND, NotBegun
from shared import typed_json
from shared.errors import CutoverRefused, printable

_SECONDS = 8.0
"""Time for each answer but that to a stop."""
_MARGIN = 15.0
"""Seconds that an engine may take beyond the time after which it kills a container."""
_MAX_BODY = 4 << 20
_DONE = (200, 201, 204, 304)
"""The last one says that the container was stopped, or started, before."""
_NOT_FOUND = 404
_REFUSALS = (400, 401, 403, _NOT_FOUND, 405)
"""The engine, or a proxy before it, has done nothing. All others, such as 409 and 500, do not say
that: Docker answers 500 if a container does not end after its SIGKILL, which may end it later."""


class _Object(msgspec.Struct, frozen=True, rename="pascal"):
    """An object of the API, whose fields begin with a capital letter. Unknown ones are ignored."""


class State(_Object, frozen=True):
    """The state of a container."""

    status: str = ""
    running: bool = False
    restarting: bool = False
    started_at: str = ""
    exit_code: int = 0


class RestartPolicy(_Object, frozen=True):
    """When the engine starts a container by itself."""

    name: str = ""
    """``no`` or empty, ``always``, ``unless-stopped`` or ``on-failure``."""
    maximum_retry_count: int = 0


class HostSettings(_Object, frozen=True):
    """The settings of a container that do not belong to its image."""

    restart_policy: RestartPolicy = RestartPolicy()
    pids_limit: int | None = None
    """Most processes and threads in it; None, 0 and negative numbers stand for no limit."""
    auto_remove: bool = False


class Mount(_Object, frozen=True):
    """A folder of the host in a container."""

    source: str = ""
    destination: str = ""


class ImageSettings(_Object, frozen=True):
    """The settings of a container that its image may have set."""

    env: list[str] | None = None
    labels: dict[str, str] | None = None


class Inspected(_Object, frozen=True):
    """A container: the answer of ``GET /containers/{name}/json``."""

    id: str
    state: State
    host_config: HostSettings
    config: ImageSettings = ImageSettings()
    mounts: list[Mount] = []

    @property
    def is_up(self) -> bool:
        """Whether it runs, or the engine is about to start it again."""
        return self.state.running or self.state.restarting

    @property
    def environment(self) -> dict[str, str]:
        """The variables of its first process."""
        return dict(each.split("=", 1) for each in self.config.env or () if "=" in each)


class NoSuchContainer(NotBegun):
    """The engine has no container of this name."""


@dataclass(frozen=True)
class Engine:
    """The engine that listens on a Unix socket. Every method may block.

    All methods raise NotBegun if the engine cannot be reached or refuses, NoSuchContainer, and
    CutoverRefused if the engine fails or does not answer. Then it may do later what was asked.

    Args:
        socket: path of its socket.
    """

    socket: str

    def inspect(self, name: str) -> Inspected:
        """Return what the engine knows of a container."""
        body = self._ask("GET", name, "/json")
        try:
            return typed_json.decode(body, Inspected)
        except msgspec.DecodeError as error:
            raise CutoverRefused(
                f"the container engine describes {name} in a way that is not understood ({error})",
                path=self.socket,
                hint=BY_HAND,
            ) from error

    def stop(self, name: str, seconds: int) -> None:
        """Stop a container, and return when it has stopped. It is killed after ``seconds``.

        Raises:
            CutoverRefused: If no answer comes, or a failure. The stop may continue nevertheless.
        """
        self._ask("POST", name, f"/stop?t={seconds}", seconds=seconds + _MARGIN)

    def start(self, name: str) -> None:
        """Start a container, unless it runs."""
        self._ask("POST", name, "/start")

    def update(self, name: str, changes: dict[str, Any]) -> None:
        """Change host settings of a container, whether it runs or not."""
        self._ask("POST", name, "/update", msgspec.json.encode(changes))

    def _ask(
        self, verb: str, name: str, path: str, body: bytes = b"", seconds: float = _SECONDS
    ) -> bytes:
        target = f"/containers/{quote(name, safe='')}{path}"
        connection = _UnixConnection(self.socket, seconds)
        try:
            connection.connect()
        except OSError as error:
            raise self._unreachable(error) from error
        try:
            connection.request(verb, target, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            content = answer.read(_MAX_BODY)
        except (OSError, http.client.HTTPException) as error:
            raise CutoverRefused(
                f"the container engine has not answered about {name} ({str(error) or 'no data'})",
                path=self.socket,
            ) from error
        finally:
            connection.close()
        if answer.status in _DONE:
            return content
        said = f"{_message(content)} (status {answer.status})"
        if answer.status == _NOT_FOUND:
            raise NoSuchContainer(
                f"the container engine does not find {name}: {said}",
                path=self.socket,
                hint="Correct 'container' in the agent's settings, or create the container again,"
                f" as with 'docker compose up -d'. {BY_HAND}",
            )
        if answer.status in _REFUSALS:
            raise NotBegun(f"the container engine refuses: {said}", path=self.socket, hint=BY_HAND)
        raise CutoverRefused(f"the container engine failed: {said}", path=self.socket, hint=BY_HAND)

    def _unreachable(self, error: OSError) -> NotBegun:
        hint = "Set 'engine_socket' in the agent's settings. Podman needs its podman.socket unit."
        if isinstance(error, PermissionError):
            hint = (
                "Run 'systemctl edit plexodus-agent', and add '[Service]' and"
                " 'SupplementaryGroups=docker', or the group of the socket if it is another one."
                " Members of this group can do everything on this machine."
            )
        return NotBegun(
            f"the container engine cannot be reached ({error.strerror or error})",
            path=self.socket,
            hint=f"{hint} {BY_HAND}",
        )


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket, opened as the user who runs the program."""

    def __init__(self, path: str, seconds: float) -> None:
        super().__init__("engine", timeout=seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        with as_program_user():
            self.sock.connect(self._path)


def _message(content: bytes) -> str:
    """Return the text of an error, which is ``{"message": …}``."""
    try:
        said = typed_json.decode(content, dict[str, Any]).get("message", "")
    except msgspec.DecodeError:
        said = content.decode(errors="replace")
    return printable(str(said).strip()[:500])
