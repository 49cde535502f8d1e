"""``make demo``: a whole move, with a stand-in for Plex that writes all the time.

The puller is killed once on the way. Everything that is claimed is checked by other programs.
"""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from rig.plex.commands import SERVER, PlexCommands, plex_commands
from rig.programs import Agent, Puller, program

from bench.plexlibrary import SMALL, make_library
from initpuller.volume.status import read_standing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_HALF = 40
_SECONDS = 60.0
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def main() -> None:
    """Run the demonstration; exit with 1 if anything is not as promised."""
    folder = Path(tempfile.mkdtemp(prefix="plexodus-demo-"))
    library = folder / "vm" / "Library"
    agent = Agent(folder / "state", library, folder / "agent.log")
    try:
        counts = make_library(library, SMALL)
        _say(f"A library of {counts.entries:,} entries, {counts.bytes_total / 2**20:.0f} MiB")
        with plex_commands(folder / "plex", library / SERVER) as plex:
            print("  A stand-in for Plex runs on it: 200 rows a second, files made and renamed")
            settings = plex.settings(folder)
            _pair(agent, settings)
            puller = Puller(folder / "config", folder / "puller.log", agent.pairing, cutover=True)
            puller.target.mkdir()
            _killed_halfway(puller, plex)
            _move(puller, plex, agent)
            _checks(puller, library)
            _stays_stopped(agent, plex)
            _undo(agent, plex, settings)
    finally:
        agent.kill()
        shutil.rmtree(folder)


def _pair(agent: Agent, settings: Path) -> None:
    agent.pair()
    agent.settings = settings
    agent.start()
    _say("The agent serves the library over TLS to whoever has the pairing, and may stop Plex")


def _killed_halfway(puller: Puller, plex: PlexCommands) -> None:
    process = puller.begin()
    _wait("half of it is moved", lambda: read_standing(str(puller.target)).percent >= _HALF)
    process.kill()
    process.wait()
    percent = read_standing(str(puller.target)).percent
    _check(not (puller.target / "Library").exists(), "no half library under the final name")
    _check(plex.is_running(), "Plex runs")
    _say(f"Live pass: the puller was killed (SIGKILL) at {percent} %. No Library, Plex still runs")


def _move(puller: Puller, plex: PlexCommands, agent: Agent) -> None:
    _say("The same command again resumes: live pass, stop of Plex, delta, commit, one rename")
    print("  " + _last_line_on_terminal(puller))
    _check(plex.story == ["start", "stop"], f"Plex was stopped once, not {plex.story}")
    for line in (agent.state / "migration.jsonl").read_text().splitlines():
        event = json.loads(line)
        print(f"  {event['at'][11:19]}  {event['about']}")


def _checks(puller: Puller, library: Path) -> None:
    _say("Independent checks of the volume")
    _run(["sha256sum", "--check", "--quiet", ".plexodus/SHA256SUMS"], puller.target)
    print("  sha256sum -c: every file has the digest that the agent read")
    _run(["diff", "-r", "--no-dereference", library, puller.target / "Library"], puller.target)
    print("  diff -r: no difference to the library as it was when Plex stopped")


def _stays_stopped(agent: Agent, plex: PlexCommands) -> None:
    agent.kill()
    agent.start()
    time.sleep(1)
    _check(not plex.is_running(), "Plex stays stopped on the VM")
    _check((agent.state / "fence").exists(), "the fence is there")
    _say("The agent was killed and started: Plex stays stopped on the VM, behind its fence")
    print("  (a condition of Plex's unit, so that no reboot and no upgrade starts a second server)")


def _undo(agent: Agent, plex: PlexCommands, settings: Path) -> None:
    done = program(
        "plexodus-agent", "undo", "--state", agent.state, "--config", settings, check=False
    )
    _check(done.returncode == 0, f"undo ends with 0\n{done.stderr}")
    _wait("Plex runs again", plex.is_running)
    _check(not (agent.state / "fence").exists(), "the fence is gone")
    _say("plexodus-agent undo: Plex runs on the VM again")


def _say(text: str) -> None:
    print(f"\n== {text}", flush=True)


def _check(holds: bool, promise: str) -> None:  # noqa: FBT001 - reads like assert
    if not holds:
        _fail(f"not as promised: {promise}")


def _fail(why: str) -> NoReturn:
    sys.exit(f"demo: {why}")


def _wait(what: str, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _SECONDS
    while not condition():
        if time.monotonic() > deadline:
            _fail(f"not after {_SECONDS:.0f} seconds: {what}")
        time.sleep(0.005)


def _last_line_on_terminal(puller: Puller) -> str:
    """Run a pull on a terminal of its own; return the last line of its progress bar."""
    master, slave = pty.openpty()
    environment = puller.environment() | {"TERM": "xterm", "COLUMNS": "110"}
    process = subprocess.Popen(puller.command(), stdout=slave, stderr=slave, env=environment)
    os.close(slave)
    output = b""
    while True:
        try:
            more = os.read(master, 65536)
        except OSError:  # EIO: the program has closed the terminal
            break
        output += more
    os.close(master)
    text = _ESCAPES.sub("", output.decode(errors="replace"))
    _check(process.wait() == 0, f"the puller ends with 0\n{text}")
    bars = [line for line in re.split(r"[\r\n]+", text) if "entries" in line and "%" in line]
    return bars[-1].strip() if bars else _fail("no progress bar was shown")


def _run(command: Sequence[str | Path], folder: Path) -> None:
    """Run an independent check; it must end with 0."""
    done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)
    _check(done.returncode == 0, f"{command[0]} finds no fault:\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    main()
