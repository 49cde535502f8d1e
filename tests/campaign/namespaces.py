"""Workers in namespaces of their own: processes, mounts and ports that end with them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

from rig.plex.commands import only_plex

from campaign.library import make_campaign_library
from campaign.machine import Outcome
from campaign.shim import compile_shim
from campaign.worker import MADE

if TYPE_CHECKING:
    from types import TracebackType

_ROOT = Path(__file__).parent.parent.parent


def prepare(folder: Path) -> bool:
    """Make the library and the shim below ``folder``; return whether there is a shim."""
    make_campaign_library(folder / MADE)
    return compile_shim(folder) is not None


class PlexTurn:
    """The turn of all workers together to run a stand-in for Plex (:func:`only_plex`).

    A worker sees no process outside its namespace, but tests outside see its Plex.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stack = ExitStack()
        self._workers = 0

    def __enter__(self) -> None:
        """Wait for the turn, unless another worker has it."""
        with self._lock:
            if self._workers == 0:
                self._stack.enter_context(only_plex())
            self._workers += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the turn, unless another worker still needs it."""
        with self._lock:
            self._workers -= 1
            if self._workers == 0:
                self._stack.close()


class Worker:
    """One worker, as a process in new namespaces.

    Args:
        folder: the prepared folder of the campaign.
        number: of the worker.
        turn: the turn of all workers.
    """

    def __init__(self, folder: Path, number: int, turn: PlexTurn) -> None:
        self._turn = turn
        place = folder / f"worker{number}"
        place.mkdir()
        self._said = place / "said"
        with self._said.open("wb") as said:
            self._process = subprocess.Popen(
                [
                    *("unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc"),
                    # bash is the namespace's init: it waits for the processes that others leave.
                    *("--net", "bash", "-c", 'ip link set lo up && "$@"; exit $?', "bash"),
                    *(sys.executable, "-m", "campaign.worker", folder),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                cwd=_ROOT,
                env=os.environ | {"PYTHONPATH": f"{_ROOT / 'tests'}:{_ROOT}", "TMPDIR": str(place)},
                text=True,
            )

    def __enter__(self) -> Self:
        """Return the worker."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Kill it: the kernel ends its processes and unmounts its filesystems."""
        self._process.kill()
        self._process.communicate()

    def run(self, story: str) -> Outcome:
        """Run the story of this name, which is a seed, or a seed and the faults that are kept."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._turn:
            self._process.stdin.write(f"{story}\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a worker has ended: {self._said.read_text()[-2000:]}")
        return Outcome(**json.loads(line))
