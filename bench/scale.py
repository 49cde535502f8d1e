"""Measures how each part of a move grows with the library, and extrapolates.

``make bench-scale``: trees of 10,000, 100,000 and a million entries on a fresh ext4, and one of ten
million: the largest tree, mounted ten times. Each part runs in a process of its own, with the
accelerator. Whole moves are of the first three, and of a library with 200 KB an entry. Prints the
tables of docs/scale.md, and writes all figures to ``bench-results/scale.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.link import Link
from bench.memory import touch_memory
from bench.peers import PEERS, Job
from bench.plexlibrary import LibraryShape, make_library
from bench.report import OURS
from bench.scale_parts import BYTES_AN_ENTRY, PARTS
from bench.scale_tables import Move, Scale, tables
from bench.scale_tree import BYTES_AN_ENTRY as SMALL_ENTRY
from bench.scale_tree import make_tree, repeated
from bench.stages import in_a_process
from bench.volume import fresh_volume

_AN_ENTRY = 5120
"""Bytes that an entry takes beside its content, at the most usual."""
_LEAST_POINTS = 2
_COPIES = 3
"""The library, and one copy of each move."""
_DATABASE_SHARE = 100
_SETTLED_SECONDS = 3
"""Until the times of a new file count as old: docs/protocol.md."""


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", nargs="+", type=int, default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--times", type=int, default=10, help="mounts of the largest (root; 0)")
    parser.add_argument("--content", type=int, default=2_000_000_000, help="bytes of the last move")
    parser.add_argument("--touch-memory", action="store_true", help="most of what is available")
    parser.add_argument("--folder", type=Path, help="where to work (default: as tempfile has it)")
    parser.add_argument("--output", type=Path, default=Path("bench-results"))
    options = parser.parse_args()
    if len(set(options.points)) < _LEAST_POINTS:
        parser.error("a line needs two points")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # nothing is left mounted
    if options.touch_memory:
        _say(f"touched {touch_memory() / 2**30:.1f} GiB of memory")
    folder = Path(tempfile.mkdtemp(prefix="plexodus-scale-", dir=options.folder))
    try:
        found = measure(folder, sorted(options.points), options.times, options.content)
    finally:
        shutil.rmtree(folder)
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "scale.json").write_text(found.to_json())
    print(tables(found))


def measure(folder: Path, points: list[int], times: int, content: int) -> Scale:
    """Measure all parts at all ``points``, and whole moves."""
    found = Scale()
    for entries in points:
        size = _COPIES * entries * (SMALL_ENTRY + _AN_ENTRY) + (1 << 30)
        with fresh_volume(folder, size) as volume:
            library = volume / "Library"
            make_tree(library, entries)
            time.sleep(_SETTLED_SECONDS)
            _parts(folder, library, found)
            found.moves.append(_move(volume))
            if entries == points[-1] and times and os.geteuid() == 0:
                with repeated(library, times) as large:
                    _parts(folder, large, found)
    entries = content // BYTES_AN_ENTRY
    with fresh_volume(folder, _COPIES * (content + entries * _AN_ENTRY) + (1 << 30)) as volume:
        shape = LibraryShape(entries, content, content // _DATABASE_SHARE)
        make_library(volume / "Library", shape)
        found.moves.append(_move(volume))
    return found


def _parts(folder: Path, library: Path, found: Scale) -> None:
    """Measure all parts for one library, in one folder of their own."""
    place = folder / "parts"
    place.mkdir()
    point: dict[str, dict[str, float]] = {}
    for part in PARTS:
        command = [sys.executable, "-m", "bench.scale_parts", part, str(place), str(library)]
        done = subprocess.run(command, check=True, capture_output=True)
        point[part] = json.loads(done.stdout)
        _say(f"{part}: {point[part]}")
    shutil.rmtree(place)
    found.parts[int(point["scan"]["entries"])] = point


def _move(volume: Path) -> Move:
    """Move the library in ``volume`` with the programs, and again in one process by stages."""
    job = Job(volume / "Library", volume / OURS, Link())
    job.target.mkdir(parents=True)
    made = PEERS[OURS](job)
    receipt = json.loads((job.target / ".plexodus" / "receipt.json").read_text())
    stages = in_a_process(volume, "native")
    move = Move(
        entries=receipt["entries"],
        content=receipt["content_bytes"],
        seconds=made.seconds,
        agent=made.agent_cpu_seconds,
        puller=made.cpu_seconds - made.agent_cpu_seconds,
        memory_mib=made.memory_mib,
        stages=stages,
    )
    _say(f"move: {move}")
    return move


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
