"""Our programs as forks of an interpreter that has imported them: a start takes a tenth of the CPU.

Everything else is as in a start of its own: process, environment, arguments, output, signals and
exit. The program's parent is a keeper, which reports its process id and its exit code.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from functools import cache
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from types import ModuleType

_LONGEST = 1 << 20
MODULES = {
    "plexodus-agent": ("agent.__main__",),
    "plexodus-puller": (
        "initpuller.__main__",
        "initpuller.pull.recipe",
        "initpuller.agent_client.client",
        "initpuller.agent_client.cutover",
        "initpuller.cluster.events",
        "initpuller.plex.paths",
        "initpuller.report.probes",
        "initpuller.report.progress",
    ),
}
"""What each program imports, its entry point first: a pull imports most of it when it begins."""


class Forked(subprocess.Popen[bytes]):
    """A forked program, used like one that was started."""

    def __init__(self, arguments: Sequence[str], report: socket.socket) -> None:
        self.args = arguments
        self.stdin = self.stdout = self.stderr = None
        self.returncode: int | None = None
        self._child_created = False  # a finalizer of the base class has nothing to wait for
        self._report = report
        self.pid = int(report.recv(_LONGEST))

    def poll(self) -> int | None:
        """Return the exit code, or minus the signal; None while the program runs."""
        return self._look(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end, and return the exit code, or minus the signal."""
        code = self._look(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return code

    def _look(self, seconds: float | None) -> int | None:
        if self.returncode is None and select.select([self._report], [], [], seconds)[0]:
            self.returncode = int(self._report.recv(_LONGEST))
            self._report.close()
        return self.returncode


def load(name: str) -> ModuleType:
    """Import what a program imports, and return its entry point."""
    entry, *_ = [importlib.import_module(each) for each in MODULES[name]]
    return entry


def start(
    command: Sequence[str | Path], output: BinaryIO, environment: Mapping[str, str]
) -> Forked:
    """Start one of our programs, with stdout and stderr to ``output``."""
    arguments = [str(each) for each in command]
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    request = {"arguments": arguments, "environment": dict(environment), "folder": os.getcwd()}
    _, host = _host(os.path.basename(arguments[0]))
    with theirs:
        files = [output.fileno(), theirs.fileno()]
        socket.send_fds(host, [json.dumps(request).encode("ascii")], files)
    return Forked(arguments, ours)


@cache
def _host(name: str) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start the interpreter that forks this program until the returned socket is closed."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        where = theirs.fileno()
        command = [sys.executable, __file__, name, str(where)]
        return subprocess.Popen(command, pass_fds=(where,)), ours


def _forked(control: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Return in a new process for each request, with the request and its files."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for keepers
    while True:
        message, files, _, _ = socket.recv_fds(control, _LONGEST, 2)
        if not message:
            os._exit(0)
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the suite itself may be under nohup
            control.close()
            return json.loads(message), files
        for file in files:
            os.close(file)


def _keep(report: int) -> None:
    """Return in a new process; in this one, report its process id, its end, and exit."""
    program = os.fork()
    if program == 0:
        os.close(report)
        return
    with socket.socket(fileno=report) as channel:
        channel.send(b"%d" % program)
        code = os.waitstatus_to_exitcode(os.waitpid(program, 0)[1])
        channel.send(b"%d" % code)
    os._exit(0)


def _serve(name: str, control: socket.socket) -> Callable[[], None]:
    """Return the program's entry point in each of its processes."""
    entry = load(name)
    gc.freeze()
    request, (output, report) = _forked(control)
    _keep(report)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    sys.argv = list(request["arguments"])
    sys.path[0] = os.path.dirname(sys.argv[0])
    main: Callable[[], None] = entry.main
    return main


if __name__ == "__main__":
    _serve(sys.argv[1], socket.socket(fileno=int(sys.argv[2])))()
