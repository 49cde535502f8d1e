"""The Plex stand-in, started and stopped by two commands."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rig.plex import standin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rig.programs import Agent

SERVER = "Application Support/Plex Media Server"
"""Plex's own folder, relative to ``Library``."""
_ARGV0 = "/usr/lib/plexmediaserver/Plex Media Server"
"""By this the agent knows Plex's processes."""
_START = """\
#!/bin/sh
[ -e "{here}/broken" ] && {{ echo "it is broken" >&2; exit 1; }}
[ -e "{here}/pid" ] && kill -0 "$(cat "{here}/pid")" 2>/dev/null && exit 0
echo start >> "{here}/story"
PYTHONHOME="{home}" setsid bash -c 'echo $$ > "$0/pid"; exec -a "$1" "$2" "$3" "$4" "$5"' \\
    "{here}" "{argv0}" "{python}" "{program}" "{server}" "{files}" </dev/null >"{here}/said" 2>&1 &
while ! [ -s "{here}/pid" ]; do sleep 0.01; done
"""
_STOP = """\
#!/bin/sh
echo stop >> "{here}/story"
pid=$(cat "{here}/pid") || exit 0
[ -e "{here}/stubborn" ] && {{ sleep 8; exit 0; }}
kill "$pid"
while kill -0 "$pid" 2>/dev/null && ! grep -q "^State:.Z" "/proc/$pid/status"; do sleep 0.01; done
rm -f "{here}/pid"
"""


@dataclass(frozen=True)
class PlexCommands:
    """One stand-in, with its commands."""

    here: Path
    server: Path

    def settings(self, folder: Path, **more: float) -> Path:
        """Return a settings file of the agent with these commands and ``more``."""
        lines = [f"{name} = {value}" for name, value in more.items()]
        commands = {name: json.dumps([str(self.here / name)]) for name in ("stop", "start")}
        lines += [f"{name}_command = {words}" for name, words in commands.items()]
        path = folder / "agent.toml"
        path.write_text("\n".join(lines) + "\n")
        return path

    def start(self) -> None:
        """Start Plex as a person who does not know of a move."""
        subprocess.run([self.here / "start"], check=True)

    def stop(self) -> None:
        """Stop Plex as such a person does."""
        subprocess.run([self.here / "stop"], check=True)

    @property
    def story(self) -> list[str]:
        """Return each ``stop``, and each ``start`` that found it stopped."""
        path = self.here / "story"
        return path.read_text().split() if path.exists() else []

    def is_running(self) -> bool:
        """Return whether its process exists."""
        try:
            pid = int((self.here / "pid").read_text())
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2]
        except (FileNotFoundError, ProcessLookupError, ValueError):
            return False
        return not state.startswith("Z")

    def wait_until(self, *, running: bool, seconds: float = 20.0) -> None:
        """Wait until it runs, or does not."""
        deadline = time.monotonic() + seconds
        while self.is_running() is not running:
            assert time.monotonic() < deadline, self.story
            time.sleep(0.02)


@contextmanager
def only_plex() -> Iterator[None]:
    """Hold a lock so that no other stand-in runs: the agent finds Plex's processes by name."""
    with (Path(tempfile.gettempdir()) / "plexodus-tests-plex.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def plex_commands(folder: Path, server: Path, files: int = 0) -> Iterator[PlexCommands]:
    """A stand-in that runs, on the folder ``server``; it is gone at the end.

    It writes over so many ``files`` that were there before it.
    """
    plex = PlexCommands(folder, server)
    folder.mkdir()
    words = {
        "here": folder,
        "argv0": _ARGV0,
        "python": sys.executable,
        "home": sys.base_prefix,
        "program": standin.__file__,
        "server": server,
        "files": files,
    }
    for name, text in (("start", _START), ("stop", _STOP)):
        (folder / name).write_text(text.format(**words))
        (folder / name).chmod(0o755)
    with only_plex():
        plex.start()
        try:
            yield plex
        finally:
            if plex.is_running():
                os.kill(int((folder / "pid").read_text()), signal.SIGKILL)
                plex.wait_until(running=False)


def agent_with_plex(new_agent: Callable[[Path], Agent], library: Path, settings: Path) -> Agent:
    """Return a paired, serving agent whose settings name the commands of a Plex."""
    agent = new_agent(library)
    agent.pair()
    agent.settings = settings
    agent.start()
    return agent
