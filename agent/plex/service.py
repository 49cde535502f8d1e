"""Plex as a service that the agent stops and starts: a systemd unit, or a pair of commands."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import IO, TYPE_CHECKING, Protocol

from agent.host.state_owner import agent_user, can_execute, program_user
from agent.plex.polkit import PLEX_UNIT, check_rights
from agent.plex.processes import processes_of
from agent.plex.server import is_running as is_listening
from shared.errors import CutoverRefused, printable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from threading import Event

    from agent.settings import Settings

_FENCE = "ConditionPathExists=!"
"""The condition of the fence. systemd skips the start, so an upgrade of Plex's package succeeds."""
_OLDER_FENCE = "AssertPathExists=!"
"""The condition in drop-ins that were written for earlier versions. The start fails."""
_SECONDS = 8.0
"""Time for a query of systemd, and for a start. A unit that is still stopping takes longer."""
_START_SECONDS = 60.0
"""Time for a start_command. A container's command pulls no image, but may wait for a disk."""
_GLANCE = 0.2
_ELSE = "Or stop Plex yourself, and pull with --no-cutover."


class CommandFailed(CutoverRefused):
    """A command failed or is missing, so its action has not begun."""


class Sight(Enum):
    """The visible state of Plex."""

    RUNS = "it runs, and nothing stops it"
    PRESENT = "something of it is there, but a stop may be under way"
    GONE = "nothing of it can be seen"


class PlexService(Protocol):
    """The operations on Plex that a cutover needs. All of them may block."""

    @property
    def starting(self) -> Sequence[str]:
        """The command that starts Plex."""

    def look(self) -> Sight:
        """Return the visible state of Plex."""

    def left(self) -> list[str]:
        """Return one line for each remaining process or open port; empty if Plex has stopped."""

    def is_running(self) -> bool:
        """Return whether Plex is running, starting or stopping."""
        return bool(self.left())

    def may_run(self) -> bool:
        """Return whether Plex is running, or True if that cannot be determined."""
        return self.is_running()

    def run(self) -> str:
        """Return an identifier of Plex's last start; empty without one."""
        return ""

    def stop(self, seconds: float, ending: Event) -> None:
        """Stop Plex within ``seconds``. ``ending``, set when the agent itself stops, ends the wait.

        Raises:
            CutoverRefused: If Plex did not stop in time. The stop may continue nevertheless,
                because killing the client of a container engine does not cancel it.
        """

    def is_stop_under_way(self) -> bool:
        """Return whether a stop that this process began continues, and :meth:`look` misses it."""
        return False

    def give_up_stop(self) -> None:
        """End a stop that this process began, unless a start replaces it anyway."""
        return

    def start(self) -> None:
        """Start Plex unless it is running.

        Raises:
            CutoverRefused: If Plex cannot be started.
        """

    def check_fence(self, path: str) -> None:
        """Raise an error unless the agent can stop and start Plex, and ``path`` works as a fence.

        Args:
            path: path of the fence. While it exists, nothing may start Plex.

        Raises:
            CutoverRefused: If a condition is not met.
        """


@dataclass(frozen=True)
class SystemdUnit(PlexService):
    """A systemd unit, controlled with ``systemctl``. A polkit rule lets the agent's user do that.

    Root needs no polkit. If root acts for the agent of another user, files are written as that user
    and ``systemctl`` runs as root (:mod:`agent.host.state_owner`).
    """

    unit: str

    @property
    def starting(self) -> Sequence[str]:
        """The ``systemctl`` command."""
        return self._ordering("start")

    def is_running(self) -> bool:
        """Return whether the unit is active, starting or stopping."""
        return self._show("ActiveState") not in ("inactive", "failed", "")

    def look(self) -> Sight:
        """Return the unit's state. A unit with a pending job is about to change, so not RUNS."""
        state = self._show("ActiveState")
        if state == "active" and self._show("Job") in ("", "0"):
            return Sight.RUNS
        return Sight.GONE if state in ("inactive", "failed", "") else Sight.PRESENT

    def run(self) -> str:
        """Return the invocation id (systemd.exec(5)): new with each start, empty after a boot."""
        return self._show("InvocationID")

    def stop(self, seconds: float, ending: Event) -> None:
        """Stop the unit. systemd kills processes that exceed the unit's own time limit."""
        self._order("stop", seconds, ending)

    def start(self) -> None:
        """Start the unit. If it is still stopping, wait for a few seconds.

        A running unit is left alone: if polkit has refused the stop, it would refuse the start.
        """
        if self.look() is Sight.RUNS:
            return
        self._order("start", _SECONDS)
        if not self.is_running():  # systemctl succeeds even if a condition made systemd skip it
            skipped = self._show("ConditionResult") == "no"
            why = "a condition of the unit is not met" if skipped else "it ended at once"
            raise CutoverRefused(
                f"{self.unit} is not running after its start ({why})",
                hint=f"Find the cause with 'systemctl status {self.unit}'.",
            )

    def left(self) -> list[str]:
        """Return the unit's state unless it is inactive, Plex's processes, and its open port."""
        state = self._show("ActiveState")
        unit = [] if state in ("inactive", "failed") else [f"{self.unit} is {state or 'unknown'}"]
        return [*unit, *_left(self._id)]

    def check_fence(self, path: str) -> None:
        """Raise an error unless a drop-in has the condition. The package has it for Plex's unit."""
        if self._show("LoadState") != "loaded":
            raise CutoverRefused(
                f"systemd has no unit {self.unit} to stop",
                hint="Set 'unit', or 'stop_command' and 'start_command', in the agent's settings;"
                " or stop Plex yourself and pull with --no-cutover.",
            )
        if self._show("NeedDaemonReload") == "yes":
            raise CutoverRefused(
                f"the files of {self.unit} have changed, and systemd has not read them yet",
                hint="Run 'systemctl daemon-reload', then pull again.",
            )
        self._check_drop_ins(path)
        check_rights(self._id, os.path.dirname(path), _ELSE)

    def _check_drop_ins(self, path: str) -> None:
        wanted = {f"{_FENCE}{path}", f"{_OLDER_FENCE}{path}"}
        for drop_in in self._show("DropInPaths").split():
            try:
                with open(drop_in, encoding="utf-8", errors="replace") as file:
                    if wanted & {_assignment(line) for line in file}:
                        return
            except OSError:
                continue  # the package's drop-in is readable, so this is another one
        raise CutoverRefused(
            f"nothing would keep {self.unit} from starting again after the move",
            path=f"/etc/systemd/system/{self._id}.d/plexodus.conf",
            hint=f"Create this file with '[Unit]' and '{_FENCE}{path}', run 'systemctl"
            f" daemon-reload', then pull again. The package has such a file for {PLEX_UNIT}.",
        )

    @cached_property
    def _id(self) -> str:
        """The unit's full name, even if the settings have an alias or no suffix."""
        return self._show("Id") or self.unit

    def _order(self, verb: str, seconds: float, ending: Event | None = None) -> None:
        hint = f"Find the cause with 'journalctl -u {self.unit}'. {_ELSE}"
        failed = f"{self.unit} did not {verb}"
        patience = None if ending is None else _Patience(ending)
        _run(self._ordering(verb), seconds, failed, hint, patience)

    def _ordering(self, verb: str) -> list[str]:
        return ["systemctl", "--no-ask-password", verb, "--", self.unit]

    def _show(self, name: str) -> str:
        command = ["systemctl", "show", f"--property={name}", "--value", "--", self.unit]
        failed = f"systemd does not report the state of {self.unit}"
        hint = f"Check that the agent runs on the machine with this unit. {_ELSE}"
        return _run(command, _SECONDS, failed, hint).strip()


@dataclass(frozen=True)
class Commands(PlexService):
    """Two commands, for a Plex without a unit. They must make sure that it stays stopped."""

    stop_command: Sequence[str]
    start_command: Sequence[str]
    _stops: list[subprocess.Popen[bytes]] = field(default_factory=list, compare=False, repr=False)
    """Stop commands that exceeded their time limit and may still be running."""

    @property
    def starting(self) -> Sequence[str]:
        """The start_command of the settings."""
        return self.start_command

    def may_run(self) -> bool:
        """Return True, because a Plex in a container may be invisible: always stop and start it."""
        return True

    def look(self) -> Sight:
        """Return whether processes or the port are visible. A stop under way is not visible."""
        return Sight.PRESENT if self.left() else Sight.GONE

    def is_stop_under_way(self) -> bool:
        """Return whether a stop_command that exceeded its time limit is still running."""
        self._stops[:] = [each for each in self._stops if each.poll() is None]
        return bool(self._stops)

    def give_up_stop(self) -> None:
        """Kill every stop_command that is still running."""
        for each in self._stops:
            each.kill()
            each.wait()
        self._stops.clear()

    def stop(self, seconds: float, ending: Event) -> None:
        """Run stop_command. If it takes too long, let it continue, as the stop itself would."""
        failed = "the stop_command of the settings failed"
        _run(self.stop_command, seconds, failed, _ELSE, _Patience(ending, self._stops))

    def start(self) -> None:
        """Run start_command. Ignore its failure if Plex is running nevertheless."""
        try:
            failed = "the start_command of the settings failed"
            _run(self.start_command, _START_SECONDS, failed, _ELSE)
        except CutoverRefused:
            if not self.is_running():
                raise

    def left(self) -> list[str]:
        """Return Plex's processes and its open port."""
        return _left("")

    def check_fence(self, path: str) -> None:
        """Raise an error unless both programs can be run. Without a unit, there is no fence."""
        user = agent_user(os.path.dirname(path))
        for setting, command in (("stop", self.stop_command), ("start", self.start_command)):
            program = shutil.which(command[0], os.F_OK) or command[0]
            if not can_execute(program, user):
                raise CutoverRefused(
                    f"{setting}_command cannot be run: its program is missing, or the agent's user"
                    " may not execute it",
                    path=program,
                    hint=f"Correct {setting}_command in the agent's settings, then restart the"
                    " agent.",
                )


def plex_service(settings: Settings) -> PlexService:
    """Return the service of the settings' commands if there are any, otherwise that of the unit."""
    if settings.stop_command:
        return Commands(settings.stop_command, settings.start_command)
    return SystemdUnit(settings.unit)


def _assignment(line: str) -> str:
    """Return one line of a unit file without the spaces that systemd ignores."""
    name, equals, value = line.partition("=")
    return f"{name.strip()}{equals}{value.strip()}"


def _left(unit: str) -> list[str]:
    left = [f"process {each}" for each in processes_of(unit)]
    return [*left, "a process listens on Plex's port"] if is_listening() else left


@dataclass(frozen=True)
class _Patience:
    """The handling of a stop that takes too long."""

    ending: Event
    """Set when the agent itself stops, which ends the wait at once."""
    left_running: list[subprocess.Popen[bytes]] | None = None
    """List that receives the process, which then continues; None if the process is killed."""


def _run(
    command: Sequence[str], seconds: float, failed: str, hint: str, stop: _Patience | None = None
) -> str:
    """Run ``command`` and return its output, without a wait for its background processes."""
    # Files in memory: unlike a pipe, a background process may keep them open.
    with (
        os.fdopen(os.memfd_create("out"), "w+b") as out,
        os.fdopen(os.memfd_create("err"), "w+b") as err,
    ):
        user, group = program_user()
        try:
            process = subprocess.Popen(  # noqa: S603 - the administrator's own, without a shell
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                env=os.environ | {"LC_ALL": "C"}, user=user, group=group,
            )  # fmt: skip
        except OSError as error:
            raise CommandFailed(f"{failed} ({error.strerror})", path=command[0]) from error
        _wait(process, seconds, failed, hint, stop)
        if process.returncode != 0:
            said = printable(_content(err).strip()[-500:]) or f"exit code {process.returncode}"
            raise CommandFailed(f"{failed} ({said})", hint=hint)
        return _content(out)


def _wait(
    process: subprocess.Popen[bytes], seconds: float, failed: str, hint: str, stop: _Patience | None
) -> None:
    deadline = time.monotonic() + seconds
    while True:
        with suppress(subprocess.TimeoutExpired):
            process.wait(_GLANCE)
            return
        is_ending = stop is not None and stop.ending.is_set()
        if not is_ending and time.monotonic() < deadline:
            continue
        if stop is not None and stop.left_running is not None:
            stop.left_running.append(process)
        else:
            process.kill()
            process.wait()
        if is_ending:
            raise CutoverRefused(f"{failed} before the agent itself was stopped")
        if stop is None:
            raise CutoverRefused(f"{failed} within {seconds:.0f} s", hint=hint)
        raise CutoverRefused(
            f"{failed} within {seconds:.0f} s (stop_seconds)",
            hint="If Plex needs more time, increase stop_seconds in the agent's settings and"
            f" restart the agent. {hint}",
        )


def _content(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")
