"""How much memory each side takes, and how much disk beside source and target.

``make footprint``: one pull of a library of 250,000 entries (``--shape`` for others), with the real
programs over TLS on loopback. Prints the peak resident size of either side (VmHWM of
proc_pid_status(5)), and the most that lay at any moment in the agent's state folder, in either
side's folder for temporary files, and in the puller's own folder beside staging: no copy of the
archive is made anywhere.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from rig.programs import Agent, Puller

from bench.plexlibrary import SHAPES, LibraryShape, make_library
from bench.processes import family, peak_kib

_LIMIT_MIB = 256
_INTERVAL = 0.25


def main() -> None:
    """Measure and print; exit with 1 over the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="l2")
    parser.add_argument("--folder", type=Path, help="where to work (default: as tempfile has it)")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="plexodus-footprint-", dir=options.folder))
    # Temporary files of both programs are here, so they are counted.
    temporary = folder / "tmp"
    temporary.mkdir()
    os.environ["TMPDIR"] = str(temporary)
    agent = Agent(folder / "state", folder / "vm" / "Library", folder / "agent.log")
    try:
        figures = measure(agent, folder, temporary, SHAPES[options.shape])
    finally:
        agent.kill()
        shutil.rmtree(folder)
    print(json.dumps(figures, indent=2))
    if max(figures["agent_rss_mib"], figures["puller_rss_mib"]) > _LIMIT_MIB:
        sys.exit(f"over {_LIMIT_MIB} MiB")


def measure(agent: Agent, folder: Path, temporary: Path, shape: LibraryShape) -> dict[str, float]:
    """One pull, watched."""
    counts = make_library(agent.library, shape)
    target = folder / "config"
    target.mkdir()
    puller = Puller(target, folder / "puller.log", agent.pair())
    agent.start()
    started = time.monotonic()
    process = puller.begin()
    memory = state = records = spooled = 0
    while process.poll() is None:
        memory = max(memory, peak_of_all(process.pid))
        state = max(state, size(agent.state))
        spooled = max(spooled, size(temporary))
        records = max(records, size(target / ".plexodus", without="staging"))
        time.sleep(_INTERVAL)
    if process.returncode != 0:
        sys.exit(puller.log.read_text())
    return {
        "entries": counts.entries,
        "library_mib": round(counts.bytes_total / 2**20),
        "seconds": round(time.monotonic() - started, 1),
        "agent_rss_mib": round(peak_of_all(agent.pid) / 1024),
        "puller_rss_mib": round(memory / 1024),
        "agent_state_mib": round(state / 2**20, 1),
        "puller_records_mib": round(records / 2**20, 1),
        "temporary_mib": round(spooled / 2**20, 1),
    }


def peak_of_all(pid: int) -> int:
    """KiB: peak resident sizes of a process and of those it has started, together."""
    return sum(map(peak_kib, family(pid)))


def size(folder: Path, without: str = "") -> int:
    """Return the bytes of all files below ``folder``, except those in its folder ``without``."""
    total = 0
    for where, folders, files in os.walk(folder):
        if without in folders:
            folders.remove(without)
        for name in files:
            try:
                total += os.lstat(os.path.join(where, name)).st_blocks * 512
            except FileNotFoundError:
                continue
    return total


if __name__ == "__main__":
    main()
