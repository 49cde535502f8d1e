"""Plex as a container of Docker or Podman, controlled over the engine's API.

The engine starts a container in more ways than systemd starts a unit: by its restart policy, after
a reboot, for ``docker start`` and for ``docker compose up``. After a move, the container gets no
restart policy, and a limit of one process or thread. The init of Plex's images needs more, and so
does Plex. Both survive reboots and ``compose up``. A container that is created again has neither,
so the agent also stops whatever has the container's name.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from math import ceil
from typing import TYPE_CHECKING

import msgspec

from agent.plex.engine import Engine, NoSuchContainer
from agent.plex.processes import pids_in, processes_in
from agent.plex.service import PlexService, Sight
from shared.errors import CutoverRefused, PlexodusError

if TYPE_CHECKING:
    from threading import Event

    from agent.plex.engine import HostSettings

_GLANCE = 0.2
_NO_START = 1
"""Limit of processes and threads."""
_SWARM = "com.docker.swarm.service.id"
"""Label of a container that Swarm manages, and replaces when it is stopped."""


class StartSettings(msgspec.Struct, frozen=True):
    """How a container starts, as it was before the move."""

    restart: str = "no"
    retries: int = 0
    pids_limit: int = -1
    """Most processes in it; -1 for no limit."""


class ContainerRecord(msgspec.Struct, frozen=True):
    """Everything that an undo needs to know of a container, without the agent's settings."""

    socket: str
    name: str
    settings: StartSettings


_BLOCKED = StartSettings(pids_limit=_NO_START)


@dataclass(frozen=True)
class Container(PlexService):
    """A container with Plex.

    Args:
        engine: its engine.
        name: its name, which a container that replaces it has, too.
    """

    engine: Engine
    name: str
    _stops: list[_Stop] = field(default_factory=list, compare=False, repr=False)
    """Stops that may continue, though the agent itself is being stopped."""

    def record(self) -> ContainerRecord:
        """Return the container and its present settings, for :meth:`allow_starts`."""
        found = self.engine.inspect(self.name).host_config
        return ContainerRecord(self.engine.socket, self.name, _start_settings(found))

    def look(self) -> Sight:
        """Return whether it runs. The engine does not tell whether somebody is stopping it."""
        return Sight.PRESENT if self.is_running() else Sight.GONE

    def is_running(self) -> bool:
        """Return whether it runs, or is about to. One that was removed does not."""
        try:
            return self.engine.inspect(self.name).is_up
        except NoSuchContainer:
            return False

    def run(self) -> str:
        """Return the container's id and its last start; both stay after it has stopped."""
        try:
            found = self.engine.inspect(self.name)
        except NoSuchContainer:
            return ""
        return f"{found.id} {found.state.started_at}"

    def left(self) -> list[str]:
        """Return its state if it runs, and each process of the machine that is still in it."""
        try:
            found = self.engine.inspect(self.name)
        except NoSuchContainer:
            return []
        up = [f"the container {self.name} is {found.state.status}"] if found.is_up else []
        return [*up, *(f"process {each}" for each in processes_in(found.id))]

    @property
    def proof(self) -> str:
        """The engine's word and the control group. Another container may have Plex's port open."""
        return f"the container {self.name} does not run, no process in it"

    def shows(self, pid: int) -> bool:
        """Return whether this process is in the container that has the name now."""
        try:
            found = self.engine.inspect(self.name)
        except NoSuchContainer:
            return False
        return pid in pids_in(found.id)

    def stop(self, seconds: float, ending: Event) -> None:
        """Stop the container. The engine kills it after ``seconds``, as systemd does with units.

        The engine's own default would be ten seconds, which is too short for a large database.
        """
        stop = _Stop(self.engine, self.name, ceil(seconds))
        stop.start()
        while stop.is_alive():
            stop.join(_GLANCE)
            if ending.is_set():
                self._stops.append(stop)
                raise CutoverRefused(
                    f"{self.name} did not stop before the agent itself was stopped"
                )
        if stop.error is not None:
            raise stop.error

    def is_stop_under_way(self) -> bool:
        """Return whether a stop of this process has had no answer yet."""
        return any(each.is_alive() for each in self._stops)

    def has_stop_failed(self) -> bool:
        """Return whether the answer to such a stop was a failure."""
        return any(each.error is not None for each in self._stops)

    def give_up_stop(self) -> None:
        """Forget the stops that were answered. The engine does not take one back."""
        self._stops[:] = [each for each in self._stops if each.is_alive()]

    def start(self) -> None:
        """Start the container unless it runs."""
        self.engine.start(self.name)
        found = self.engine.inspect(self.name)
        if not found.is_up:
            raise CutoverRefused(
                f"the container {self.name} ended at once (exit code {found.state.exit_code})",
                hint=f"Find the cause with 'docker logs {self.name}'.",
            )

    def check_fence(self, path: str) -> None:
        """Raise an error if a stop would remove the container, or have another one started."""
        del path  # containers know nothing of it
        found = self.engine.inspect(self.name)
        if found.host_config.auto_remove:
            raise CutoverRefused(
                f"the engine removes the container {self.name} when it stops (--rm)",
                hint="Create it without --rm, or stop Plex yourself and pull with --no-cutover.",
            )
        if _SWARM in (found.config.labels or {}):
            raise CutoverRefused(
                f"{self.name} belongs to a Swarm service, which replaces it when it stops",
                hint="Set 'stop_command' and 'start_command' instead, with"
                " 'docker service scale SERVICE=0' and 'SERVICE=1'.",
            )

    def block_starts(self) -> None:
        """Take the restart policy away, and leave room for no process."""
        found = self.engine.inspect(self.name).host_config
        if _start_settings(found) != _BLOCKED:
            self._set(_BLOCKED)

    def allow_starts(self, record: ContainerRecord) -> None:
        """Give the container the settings of ``record`` again."""
        try:
            found = _start_settings(self.engine.inspect(self.name).host_config)
        except NoSuchContainer:  # a start of it says so
            return
        if found != record.settings and found.pids_limit == _NO_START:
            self._set(record.settings)

    def _set(self, wanted: StartSettings) -> None:
        policy = {"Name": wanted.restart, "MaximumRetryCount": wanted.retries}
        self.engine.update(self.name, {"RestartPolicy": policy, "PidsLimit": wanted.pids_limit})


class _Stop(threading.Thread):
    """One request to stop a container, which nobody has to wait for."""

    def __init__(self, engine: Engine, name: str, seconds: int) -> None:
        super().__init__(name=f"stop {name}", daemon=True)
        self.error: PlexodusError | None = None
        self._engine, self._name, self._seconds = engine, name, seconds

    def run(self) -> None:
        """Send it."""
        try:
            self._engine.stop(self._name, self._seconds)
        except PlexodusError as error:
            self.error = error


def _start_settings(found: HostSettings) -> StartSettings:
    policy, limit = found.restart_policy, found.pids_limit or -1
    return StartSettings(policy.name or "no", policy.maximum_retry_count, max(limit, -1))
