"""``make demo``: a library moved over TLS, with the puller and the agent killed on the way."""

from __future__ import annotations

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

from rig.programs import Agent, Puller

from bench.plexlibrary import SMALL, make_library
from initpuller.volume.status import read_standing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_HALF = 40
_SECONDS = 30.0
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def main() -> None:
    """Run the demonstration; exit with 1 where anything is not as promised."""
    folder = Path(tempfile.mkdtemp(prefix="plexodus-demo-"))
    agent = Agent(folder / "state", folder / "vm" / "Library", folder / "agent.log")
    try:
        tell(folder, agent)
    finally:
        agent.kill()
        shutil.rmtree(folder)


def tell(folder: Path, agent: Agent) -> None:
    """The story, in the order in which it happens."""
    library, target = agent.library, folder / "config"
    target.mkdir()
    counts = make_library(library, SMALL)
    say(f"A Plex library of {counts.entries:,} entries, {counts.bytes_total / 2**20:.0f} MiB")
    puller = Puller(target, folder / "puller.log", agent.pair())
    agent.start()
    say("The agent serves it over TLS, to whoever has the pairing")

    process = puller.begin()
    wait_until("half of it is moved", lambda: read_standing(str(target)).percent >= _HALF)
    process.kill()
    process.wait()
    at = read_standing(str(target)).percent
    check(not (target / "Library").exists(), "no half library under the final name")
    say(f"The puller was killed (SIGKILL) at {at} %: there is no Library, the journal is kept")

    scans = agent.requests().count("POST /v1/snapshots")
    process = puller.begin()
    wait_until("it scans", lambda: agent.requests().count("POST /v1/snapshots") > scans)
    agent.kill()
    time.sleep(1)
    agent.start()
    say("The puller runs again; the agent was killed under it (SIGKILL), and runs again")
    check(process.wait(_SECONDS * 2) == 0, f"the puller ends with 0\n{puller.log.read_text()}")
    first = folder / "first"
    shutil.move(target / "Library", first)
    shutil.rmtree(target / ".plexodus")

    say("The same again without any trouble, as it looks on a terminal")
    print("  " + last_line_on_terminal(puller))
    say("The receipt")
    print((target / ".plexodus" / "receipt.json").read_text())
    say("Independent checks")
    run(["sha256sum", "--check", "--quiet", ".plexodus/SHA256SUMS"], target)
    print("  sha256sum -c: every file is right")
    for moved, how in ((first, "with the kills"), (target / "Library", "without")):
        run(["diff", "-r", "--no-dereference", library, moved], target)
        print(f"  diff -r: no difference, {how}")


def say(text: str) -> None:
    """A step of the story."""
    print(f"\n== {text}", flush=True)


def check(holds: bool, promise: str) -> None:  # noqa: FBT001 - reads like assert
    """Stop where ``promise`` does not hold."""
    if not holds:
        fail(f"not as promised: {promise}")


def fail(why: str) -> NoReturn:
    """Stop the demonstration."""
    sys.exit(f"demo: {why}")


def wait_until(what: str, condition: Callable[[], bool]) -> None:
    """Poll ``condition`` until it holds."""
    deadline = time.monotonic() + _SECONDS
    while not condition():
        if time.monotonic() > deadline:
            fail(f"after {_SECONDS:.0f} seconds still not: {what}")
        time.sleep(0.005)


def last_line_on_terminal(puller: Puller) -> str:
    """Pull on a terminal of its own; the last line of the progress bar."""
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
    check(process.wait() == 0, f"the puller ends with 0\n{text}")
    bars = [line for line in re.split(r"[\r\n]+", text) if "entries" in line and "%" in line]
    return bars[-1].strip() if bars else fail("no progress bar was shown")


def run(command: Sequence[str | Path], folder: Path) -> None:
    """Run an independent check; it must end with 0."""
    done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)
    check(done.returncode == 0, f"{command[0]} is content:\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    main()
