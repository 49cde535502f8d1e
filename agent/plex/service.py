"""Plex as what is stopped and started: a systemd unit, or a pair of commands."""

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

_FENCE = "ConditionPathExists=!"
"""systemd skips a start then, and an upgrade of Plex's own package passes."""
_OLDER_FENCE = "AssertPathExists=!"
"""In drop-ins that people wrote for earlier versions: a start fails then."""
_SECONDS = 8.0
"""For what systemd answers at once, and for a start: a unit that is still stopping takes longer."""
_START_SECONDS = 60.0
"""For a command that starts Plex: that of a container pulls no image, but may wait for a disk."""
_GLANCE = 0.2
_ELSE = "Or stop Plex yourself, and pull with --no-cutover."


class CommandFailed(CutoverRefused):
    """A command that has ended badly, or was not there: what it was for has not begun."""


class Sight(Enum):
    """How much of Plex the agent can see."""

    RUNS = "it runs, and nothing stops it"
    PRESENT = "something of it is there, but a stop may be under way"
    GONE = "nothing of it can be seen"


class PlexService(Protocol):
    """The interface to Plex that a cutover needs. Every method may block."""

    @property
    def starting(self) -> Sequence[str]:
        """The command that starts it."""

    def is_running(self) -> bool:
        """Whether it was started and not stopped."""

    def may_run(self) -> bool:
        """Return the same, and True if that cannot be determined."""

    def look(self) -> Sight:
        """Return what can be seen of it."""

    def is_stop_under_way(self) -> bool:
        """Return whether what :meth:`stop` has begun in this process has not ended yet."""

    def give_up_stop(self) -> None:
        """End what :meth:`stop` has begun in this process, if it has not ended yet."""

    def run(self) -> str:
        """A name for its last start; empty where nobody keeps one."""

    def stop(self, seconds: float, ending: Event) -> None:
        """Stop it.

        Args:
            seconds: that it may take.
            ending: once it is set, there is no time any more.

        Raises:
            CutoverRefused: it could not be, in this time. The stop may continue:
                killing the client of a container engine does not end it.
        """

    def start(self) -> None:
        """Start it; nothing happens to one that runs.

        Raises:
            CutoverRefused: it could not be, now.
        """

    def left(self) -> list[str]:
        """Return the remains of Plex, a line each; nothing when it has stopped."""

    def check_fence(self, path: str) -> None:
        """Make sure that we may stop and start it, and nobody starts it while ``path`` is there.

        Raises:
            CutoverRefused: it is not so.
        """


@dataclass(frozen=True)
class SystemdUnit:
    """A unit of systemd, by ``systemctl``: polkit lets us stop and start that one.

    Root needs no polkit. Where root asks for another user's agent, files are written as that user
    and orders are given by root (:mod:`agent.host.state_owner`).
    """

    unit: str

    @property
    def starting(self) -> Sequence[str]:
        """An order to systemd."""
        return self._ordering("start")

    def is_running(self) -> bool:
        """Also while it starts or stops."""
        return self._show("ActiveState") not in ("inactive", "failed", "")

    def may_run(self) -> bool:
        """As systemd can tell."""
        return self.is_running()

    def look(self) -> Sight:
        """Return what systemd knows: a unit with a job is about to change."""
        state = self._show("ActiveState")
        if state == "active" and self._show("Job") in ("", "0"):
            return Sight.RUNS
        return Sight.GONE if state in ("inactive", "failed", "") else Sight.PRESENT

    def is_stop_under_way(self) -> bool:
        """Return False: :meth:`look` shows systemd's job, whoever has ordered it."""
        return False

    def give_up_stop(self) -> None:
        """Do nothing: an order to start takes the place of the job."""

    def run(self) -> str:
        """The invocation id (systemd.exec(5)): another one with each start, none after a boot."""
        return self._show("InvocationID")

    def stop(self, seconds: float, ending: Event) -> None:
        """As the unit says; whatever is left after its time is killed by systemd."""
        self._order("stop", seconds, ending)

    def start(self) -> None:
        """Waits for a unit that is still stopping, but not for long.

        One that was not stopped is not started: where polkit refuses one, it refuses the other.
        """
        if self.look() is Sight.RUNS:
            return
        self._order("start", _SECONDS)
        if not self.is_running():  # systemctl succeeds where a condition has the start skipped
            skipped = self._show("ConditionResult") == "no"
            why = "a condition of the unit is not met" if skipped else "it ended at once"
            raise CutoverRefused(
                f"{self.unit} does not run after its start ({why})",
                hint=f"'systemctl status {self.unit}' says more.",
            )

    def left(self) -> list[str]:
        """The unit's state, all processes that are or look like Plex's, and its port."""
        state = self._show("ActiveState")
        unit = [] if state in ("inactive", "failed") else [f"{self.unit} is {state or 'unknown'}"]
        return [*unit, *_left(self._id)]

    def check_fence(self, path: str) -> None:
        """Whether a drop-in has the condition; the package brings it for Plex's own unit."""
        if self._show("LoadState") != "loaded":
            raise CutoverRefused(
                f"there is no {self.unit} that could be stopped",
                hint="Set 'unit', or 'stop_command' and 'start_command', in the agent's settings;"
                " or stop Plex yourself and pull with --no-cutover.",
            )
        if self._show("NeedDaemonReload") == "yes":
            raise CutoverRefused(
                f"systemd has not read yet what has changed of {self.unit}",
                hint="Run 'systemctl daemon-reload', and pull again.",
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
                continue  # one that we may not read is not the one that we brought
        raise CutoverRefused(
            f"nothing would keep {self.unit} from starting again after the move",
            path=f"/etc/systemd/system/{self._id}.d/plexodus.conf",
            hint=f"Put '[Unit]' and '{_FENCE}{path}' into it, run 'systemctl daemon-reload', and"
            f" pull again (the package has it for {PLEX_UNIT}).",
        )

    @cached_property
    def _id(self) -> str:
        """Its full name: of an alias, and of a name without its suffix."""
        return self._show("Id") or self.unit

    def _order(self, verb: str, seconds: float, ending: Event | None = None) -> None:
        hint = f"The journal says more: journalctl -u {self.unit}. {_ELSE}"
        failed = f"{self.unit} did not {verb}"
        patience = None if ending is None else _Patience(ending)
        _run(self._ordering(verb), seconds, failed, hint, patience)

    def _ordering(self, verb: str) -> list[str]:
        return ["systemctl", "--no-ask-password", verb, "--", self.unit]

    def _show(self, name: str) -> str:
        command = ["systemctl", "show", f"--property={name}", "--value", "--", self.unit]
        failed = f"systemd does not tell about {self.unit}"
        return _run(command, _SECONDS, failed, f"Is this its machine? {_ELSE}").strip()


@dataclass(frozen=True)
class Commands:
    """Two commands, for a Plex that is no unit: they have to see to it that it stays stopped."""

    stopping: Sequence[str]
    starting: Sequence[str]
    _stops: list[subprocess.Popen[bytes]] = field(default_factory=list, compare=False, repr=False)
    """Those that took longer than their time and may still be under way."""

    def is_running(self) -> bool:
        """By its processes and its port, where these can be seen."""
        return bool(self.left())

    def may_run(self) -> bool:
        """In a container of its own it may not be seen: so it is stopped, and started again."""
        return True

    def look(self) -> Sight:
        """Return whether processes or the port can be seen; a stop of them cannot."""
        return Sight.PRESENT if self.left() else Sight.GONE

    def is_stop_under_way(self) -> bool:
        """Return whether a stop_command that took too long still runs."""
        self._stops[:] = [each for each in self._stops if each.poll() is None]
        return bool(self._stops)

    def give_up_stop(self) -> None:
        """Kill a stop_command that still runs."""
        for each in self._stops:
            each.kill()
            each.wait()
        self._stops.clear()

    def run(self) -> str:
        """Nobody keeps one."""
        return ""

    def stop(self, seconds: float, ending: Event) -> None:
        """Run the one; where it takes too long, let it end, since what it began goes on."""
        failed = "the stop_command of the settings failed"
        _run(self.stopping, seconds, failed, _ELSE, _Patience(ending, self._stops))

    def start(self) -> None:
        """Run the other, unless it has gone on and Plex runs."""
        try:
            _run(self.starting, _START_SECONDS, "the start_command of the settings failed", _ELSE)
        except CutoverRefused:
            if not self.is_running():
                raise

    def left(self) -> list[str]:
        """Its processes and its port."""
        return _left("")

    def check_fence(self, path: str) -> None:
        """Make sure that both programs are there; nobody starts Plex but by a command."""
        user = agent_user(os.path.dirname(path))
        for setting, command in (("stop", self.stopping), ("start", self.starting)):
            program = shutil.which(command[0], os.F_OK) or command[0]
            if not can_execute(program, user):
                raise CutoverRefused(
                    f"{setting}_command cannot be run: its program is missing, or the agent's user"
                    " may not execute it",
                    path=program,
                    hint=f"Correct {setting}_command in the agent's settings, and restart it.",
                )


def plex_service(unit: str, stopping: Sequence[str], starting: Sequence[str]) -> PlexService:
    """The commands, if there are any, else the unit."""
    return Commands(stopping, starting) if stopping else SystemdUnit(unit)


def _assignment(line: str) -> str:
    """One line of a unit file, without the spaces that systemd ignores."""
    name, equals, value = line.partition("=")
    return f"{name.strip()}{equals}{value.strip()}"


def _left(unit: str) -> list[str]:
    left = [f"process {each}" for each in processes_of(unit)]
    return [*left, "something listens on Plex's port"] if is_listening() else left


@dataclass(frozen=True)
class _Patience:
    """The outcome of a stop that takes too long."""

    ending: Event
    """Once it is set, there is no time any more."""
    left_running: list[subprocess.Popen[bytes]] | None = None
    """Where it goes then; None: it is killed."""


def _run(
    command: Sequence[str], seconds: float, failed: str, hint: str, stop: _Patience | None = None
) -> str:
    """Return the output of the command, without waiting for its background processes.

    Raises:
        CutoverRefused: it ended badly, not at all, or was not there.
    """
    with _scratch() as out, _scratch() as err:
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
            said = printable(_content(err).strip()[-500:])
            raise CommandFailed(
                f"{failed} ({said or f'exit code {process.returncode}'})", hint=hint
            )
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
            raise CutoverRefused(f"{failed} before the agent was stopped itself")
        if stop is None:
            raise CutoverRefused(f"{failed} within {seconds:.0f} s", hint=hint)
        raise CutoverRefused(
            f"{failed} within {seconds:.0f} s (stop_seconds)",
            hint=f"If Plex needs longer, raise stop_seconds in the agent's settings and restart the"
            f" agent. {hint}",
        )


def _scratch() -> IO[bytes]:
    """A file in memory: unlike a pipe, it can be left to somebody who never closes it."""
    return os.fdopen(os.memfd_create("said"), "w+b")


def _content(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")
