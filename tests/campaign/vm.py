"""The VM of one story: its library, its Plex, its agent, and what people do on it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rig.programs import Agent, clean_environment, read_log

from campaign.plex import make_plex

if TYPE_CHECKING:
    from rig.power.disk import ForgetfulDisk

    from campaign.shim import Shim

LEASE = 4.0
"""Seconds that Plex stays stopped without a request from the puller."""
_STOP_SECONDS = 20.0
_END_SECONDS = 60.0
_ACCEPTED = range(200, 300)
_MORE_NEEDED = 428
_BIN = Path(sys.executable).parent
_BOOT = Path(__file__).with_name("boot.py")
_WRONG_CODES = {
    0: "although nobody ended it",
    1: "which is a bug",
    2: "after which its unit does not start it again",
}
"""Exit codes of an agent that no fault of the campaign causes."""
_REWRITTEN = 5
"""Old files that Plex writes over, round and round."""


class Vm:
    """One VM.

    Args:
        folder: everything of the VM but its library, on a disk; it is created.
        library: the library, of which it is the only user.
        shim: the library that fails the agent's calls, if the story needs it.
        has_unit: whether the end of the agent is followed by the command of its unit.
        disk: the disk of the agent's state folders if its power will be cut.
    """

    def __init__(
        self,
        folder: Path,
        library: Path,
        shim: Shim | None,
        *,
        has_unit: bool,
        disk: ForgetfulDisk | None = None,
    ) -> None:
        folder.mkdir()
        self.library = library
        states, self.disk = folder / "states", disk
        states.mkdir()
        state = states / "state"
        fences = [state / "fence", states / "state-witness" / "fence"]
        self.fences = fences
        self.plex = make_plex(folder / "plex", self.library, fences, _REWRITTEN)
        self.agent = Agent(state, self.library, folder / "agent.log")
        self.agent.log.touch()
        limits = {"lease_seconds": LEASE, "stop_seconds": _STOP_SECONDS}
        self.agent.settings = self.plex.settings(folder, **limits)
        self.shim = shim
        self._has_unit = has_unit
        self.is_up = False
        """Whether the agent was started, and not ended by a fault."""
        self._sent: set[int] = set()
        """Each signal that was sent to the agent since its start."""
        self.undos: list[subprocess.Popen[bytes]] = []
        """Each ``plexodus-agent undo`` of a person."""
        self.undos_of_unit: list[subprocess.Popen[bytes]] = []
        """Each command with which the unit has followed an agent that was killed."""
        self.killed: list[subprocess.Popen[bytes]] = []
        """Those of both that were killed with the VM."""
        self._log = folder / "commands.log"

    def mount(self) -> None:
        """Mount the disk of the state folders."""
        if self.disk is not None:
            self.disk.make()

    def unmount(self) -> None:
        """Unmount it, also while a file is open."""
        if self.disk is not None:
            self.disk.remove()

    def start_agent(self) -> None:
        """Start the agent, after the command of its unit has ended; or raise AgentEnded."""
        for each in self.undos_of_unit:
            each.wait(timeout=_END_SECONDS)
        self._sent.clear()
        self.agent.start(environment=self.shim.environment if self.shim else None)
        self.is_up = True

    def kill_agent(self) -> None:
        """Kill the agent. With a unit, its command starts a Plex that is not stopped for good."""
        self.is_up = False
        self.agent.kill()
        if self._has_unit:
            self.undos_of_unit.append(self._undo("--unless-committed"))

    def end_agent(self) -> int:
        """Send SIGTERM to the agent, and return its exit code."""
        self.is_up = False
        os.kill(self.agent.pid, signal.SIGCONT)
        return self.agent.stop()

    def signal_agent(self, number: signal.Signals) -> None:
        """Send a signal to the agent if it runs."""
        with suppress(ProcessLookupError):
            if self.is_up:
                self._sent.add(number)
                os.kill(self.agent.pid, number)

    def wrong_end(self) -> str:
        """Return how the agent has ended if it must never end so; empty otherwise."""
        code = self.agent.ended
        if code is None or -code in self._sent:
            return ""
        if code < 0:
            return f"was ended by signal {-code}, which nobody sent"
        return f"ended with {code}, {_WRONG_CODES[code]}" if code in _WRONG_CODES else ""

    def cut_power(self) -> None:
        """Kill agent and Plex, and every command that was under way."""
        self.is_up = False
        self.agent.kill()
        for each in [*self.undos, *self.undos_of_unit]:
            if each.poll() is None:
                each.kill()
                each.wait()
                self.killed.append(each)
        running = self.plex.processes()
        for pid in running:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.plex.wait_until(running=False)
        (self.plex.here / "pid").unlink(missing_ok=True)
        if running:
            self.plex.keep()

    def restart_clock(self, uptime: float) -> None:
        """Let the agent's clock count from ``uptime`` seconds ago, as after a boot."""
        self.agent.before = [sys.executable, "-S", _BOOT, str(uptime)]

    def undo(self) -> None:
        """Undo the move as an administrator, without waiting for the end of the command."""
        self.undos.append(self._undo())

    def drop_snapshots(self) -> None:
        """Remove the agent's snapshots while it does not run."""
        shutil.rmtree(self.agent.state / "snapshots", ignore_errors=True)

    def record(self) -> dict[str, Any]:
        """Return the record of the cutover, from its file; the later one of the two copies."""
        found: list[dict[str, Any]] = [{"phase": "idle", "serial": 0}]
        for folder in (self.agent.state, self.agent.state.with_name("state-witness")):
            with suppress(OSError, ValueError):
                found.append(json.loads((folder / "cutover.json").read_bytes()))
        return max(found, key=lambda each: int(each["serial"]))

    def accepted_commits(self) -> set[str]:
        """Return the name of each cutover whose commit the agent has accepted, by its log.

        The agent writes the line after its answer.
        """
        return {
            str(line["path"]).split("/")[-2]
            for line in read_log(self.agent.log)
            if line.get("event") == "request"
            and str(line.get("path")).endswith("/commit")
            and line.get("status") in _ACCEPTED
        }

    def is_committed(self) -> bool:
        """Return whether Plex is stopped for good."""
        return bool(self.record()["phase"] == "committed")

    def has_fence(self) -> bool:
        """Return whether one of the fences is up."""
        return any(each.exists() for each in self.fences)

    def frames(self) -> int:
        """Return how many frames were requested of the agent in all."""
        paths = [str(line.get("path")) for line in read_log(self.agent.log)]
        return sum("/frames/" in each for each in paths)

    def changed_blocks(self) -> int:
        """Return how many blocks of large files the agent has sent as changed pieces only.

        It answers 428 before, because it needs the digests of the pieces that the puller has.
        """
        return sum(line.get("status") == _MORE_NEEDED for line in read_log(self.agent.log))

    def end(self) -> None:
        """Kill everything of the VM."""
        with suppress(ProcessLookupError):
            self.signal_agent(signal.SIGCONT)
        self.cut_power()

    def wait_for_undos(self) -> None:
        """Wait until each command of a person has ended."""
        deadline = time.monotonic() + _END_SECONDS
        for each in self.undos:
            each.wait(timeout=max(0.1, deadline - time.monotonic()))

    def _undo(self, *options: str) -> subprocess.Popen[bytes]:
        command: list[str | Path] = [*self.agent.before, _BIN / "plexodus-agent", "undo", *options]
        command += ["--state", self.agent.state, "--config", self.agent.settings or ""]
        with self._log.open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, env=clean_environment())
