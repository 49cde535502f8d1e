"""Moves libraries by every method, interleaved, and compares the times.

``make bench``: L1, L2 and L3, five rounds of each method on loopback. In each round every method
moves the library once, on the same fresh filesystem and into a folder of its own; the order
rotates. A method that took more than a minute for a library is not run again. Prints a table, and
writes it with all single figures to ``bench-results/`` (JSON, PNG).

The first use of memory is slow in a virtual machine, so ``--touch-memory`` writes to free memory
before the first round.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import signal
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from bench.link import Link, shaped_link
from bench.memory import touch_memory
from bench.peers import PEERS, Job, Measurement
from bench.plexlibrary import SHAPES, LibraryShape, make_library
from bench.report import OURS, Results, plot, table
from bench.volume import fresh_volume

if TYPE_CHECKING:
    from collections.abc import Iterator

_SMOKE = LibraryShape(1_500, 30_000_000, 6_000_000)
_AN_ENTRY = 5120
"""Bytes that an entry takes beside its content, at the most usual."""
_MORE = 4
"""Libraries that fit beside the copies: the source, the two archives of S, the filesystem's own."""


def main() -> None:
    """Measure what the command line asks for."""
    shapes = SHAPES | {"smoke": _SMOKE}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--library", nargs="+", choices=shapes, default=["l1", "l2", "l3"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--slow",
        type=float,
        default=60,
        metavar="SECONDS",
        help="what took longer is not run again",
    )
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--link", metavar="RATE", help="a LAN of this speed, such as 1gbit (root)")
    parser.add_argument("--touch-memory", action="store_true", help="most of what is available")
    parser.add_argument("--pin", action="store_true", help="one core for each side")
    parser.add_argument("--folder", type=Path, help="where to work (default: as tempfile has it)")
    parser.add_argument("--output", type=Path, default=Path("bench-results"))
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # nothing is left mounted
    link = shaped_link(options.link) if options.link else nullcontext(Link())
    if options.touch_memory:
        print(f"touched {touch_memory() / 2**30:.1f} GiB of memory", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="plexodus-bench-", dir=options.folder))
    try:
        with link as unpinned:
            between = unpinned.pinned() if options.pin else unpinned
            how = (options.link or "loopback") + ("-pinned" if options.pin else "")
            results = Results(how, between.bytes_per_second)
            for name in options.library:
                for peer, made in rounds(folder, shapes[name], between, options):
                    results.add(name, peer, made)
                    about = f"{made.seconds:.2f} s, {made.cpu_seconds:.2f} s of CPU"
                    print(f"{name} {peer} {about}", flush=True)
    finally:
        shutil.rmtree(folder)
    print(table(results))
    options.output.mkdir(parents=True, exist_ok=True)
    figures = options.output / f"{results.link}.json"
    figures.write_text(json.dumps(dataclasses.asdict(results), indent=2) + "\n")
    plot(results, figures.with_suffix(".png"))


def rounds(
    folder: Path, shape: LibraryShape, link: Link, options: argparse.Namespace
) -> Iterator[tuple[str, Measurement]]:
    """Yield all moves of a library of ``shape`` in all rounds; a slow peer is not run again."""
    peers = list(options.peers)
    for number in range(options.rounds):
        if not peers:
            return
        first = number % len(peers)
        for peer, made in one_round(folder, shape, link, peers[first:] + peers[:first]):
            yield peer, made
            if made.seconds > options.slow and peer != OURS:
                peers.remove(peer)


def one_round(
    folder: Path, shape: LibraryShape, link: Link, peers: list[str]
) -> Iterator[tuple[str, Measurement]]:
    """Every one of ``peers`` moves a library of ``shape`` once, in this order."""
    once = shape.bytes_total + shape.entries * _AN_ENTRY
    with fresh_volume(folder, (len(peers) + _MORE) * once) as volume:
        library = volume / "vm" / "Library"
        make_library(library, shape)
        for peer in peers:
            job = Job(library, volume / peer, link)
            job.target.mkdir(parents=True)
            yield peer, PEERS[peer](job)


if __name__ == "__main__":
    main()
