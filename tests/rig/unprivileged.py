"""The real programs as a user without any privilege, wherever the interpreter is installed.

An interpreter below ``/root`` or in a private checkout cannot be started by another user. So the
program is loaded first; then, before its first line runs, it becomes that user for good.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rig.programs import Agent, Puller, clean_environment, read_log

if TYPE_CHECKING:
    from collections.abc import Iterator

_NOBODY = 65534
_START_SECONDS = 20.0
USER = os.geteuid() or _NOBODY
"""uid of programs without privilege: the tests' own, or where that is root's, nobody's."""
GROUP = os.getegid() if os.geteuid() else _NOBODY
_BECOME = """
import codecs, concurrent.futures.thread, ctypes, os, traceback
for encoding in ("ascii", "idna", "latin-1", "utf-8"):
    codecs.lookup(encoding)  # what is loaded only when it is needed
from agent.__main__ import main as agent
from initpuller.__main__ import main as puller
import initpuller.agent_client.client, initpuller.plex.preferences, initpuller.pull.recipe
if os.geteuid() == 0:
    os.setgroups([]); os.setresgid(*3 * [{group}]); os.setresuid(*3 * [{user}])
    # As after execve(2): a process that changed its user may not look into its own /proc/self/fd.
    PR_SET_DUMPABLE = 4
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
{program}()
"""


def command(program: str, *arguments: str | Path) -> list[str | Path]:
    """The command line that runs ``agent`` or ``puller`` without privilege."""
    code = _BECOME.format(group=GROUP, user=USER, program=program)
    return [sys.executable, "-c", code, *arguments]


class UnprivilegedPuller(Puller):
    """A puller without any capability."""

    def command(self, *options: str | Path) -> list[str | Path]:
        """The command line of ``pull``."""
        return command("puller", "pull", "--target", self.target, *options)


class UnprivilegedAgent(Agent):
    """An agent without any capability; its state folder is given to it when it is started."""

    def start(self, *options: str | Path, environment: dict[str, str] | None = None) -> None:
        """Start serving, and wait until it listens."""
        for path in (self.state, *self.state.rglob("*")):
            os.chown(path, USER, GROUP)
        where = [f"--library={self.library}", f"--listen=127.0.0.1:{self.port}"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command("agent", "serve", "--state", self.state, *where, *options),
                stderr=log,
                env=clean_environment() | (environment or {}),
            )
        deadline = time.monotonic() + _START_SECONDS
        while not any(line.get("event") == "serving" for line in read_log(self.log)):
            assert self._process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)


@contextmanager
def open_place() -> Iterator[Path]:
    """A folder that other users can reach: pytest's own is for the tests' user alone."""
    place = Path(tempfile.mkdtemp(prefix="plexodus-test-", dir="/var/tmp"))
    place.chmod(0o755)
    try:
        yield place
    finally:
        subprocess.run(["chmod", "-R", "u+rwX", place], check=False)
        shutil.rmtree(place)
