"""The judge of the commands that undo a cutover: those of people, and that of the agent's unit."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess

    from campaign.vm import Vm

_EVERY = 0.01
_DOCUMENTED = (0, 15, 17)
"""Exit codes of ``plexodus-agent undo`` (docs/exit-codes.md)."""


class Undos:
    """Judges each command when it has ended. One that a power cut killed is not judged.

    Args:
        vm: the VM.
        seconds: time until Plex runs after an undo.
    """

    def __init__(self, vm: Vm, seconds: float) -> None:
        self._vm, self._seconds = vm, seconds
        self._judged: list[subprocess.Popen[bytes]] = []
        self._overtaken: list[subprocess.Popen[bytes]] = []
        """Commands of people during or before the last pull, which may have stopped Plex since."""

    def pull_has_ended(self) -> None:
        """Expect nothing of the undos so far: the pull that has ended may have stopped Plex."""
        self._overtaken = [each for each in self._vm.undos if each.poll() is not None]

    def faults(self) -> list[str]:
        """Return what is wrong with the commands that have ended since the last call."""
        vm = self._vm
        new = [
            each
            for each in (*vm.undos, *vm.undos_of_unit)
            if each.poll() is not None and each not in (*self._judged, *vm.killed)
        ]
        self._judged += new
        found = [
            f"'plexodus-agent undo' ended with {each.returncode}"
            for each in new
            if each.returncode not in _DOCUMENTED
        ]
        is_last = any(
            each in vm.undos and each not in self._overtaken and each.returncode == 0
            for each in new
        )
        if is_last and not self._is_over():
            state = f"{vm.record()}, fence: {vm.has_fence()}, Plex: {vm.plex.processes()}"
            found.append(f"'plexodus-agent undo' ended with 0, and after it: {state}")
        return found

    def _is_over(self) -> bool:
        """Wait until Plex runs, without a cutover or a fence; return whether it does."""
        vm, deadline = self._vm, time.monotonic() + self._seconds
        while vm.record()["phase"] != "idle" or vm.has_fence() or not vm.plex.processes():
            if time.monotonic() > deadline:
                return False
            time.sleep(_EVERY)
        return True
