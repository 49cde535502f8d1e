"""Processor seconds of each stage of a move, with and without the accelerator.

The stages are the programs' own functions, one after the other in one process, without a network.
TLS, HTTP and the event loops are not in it: `bench.compare` measures whole moves.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rig.two_sides import TwoSides

from agent.frames.builder import build_frame
from agent.frames.encoder import encode
from agent.snapshots.store import SnapshotStore
from agent.snapshots.whole_tree import check_unchanged, complete_digests, sums
from agent.source.library import CurrentLibrary
from bench.plexlibrary import SERVER, SHAPES, make_library
from bench.volume import fresh_volume
from initpuller.volume.publish.verify import wrong_sums
from initpuller.volume.staging.unfinished import Unfinished
from initpuller.volume.staging.unpack import Destination, FetchedFrame, unpack_frame
from shared.frames.codec import Encoding, decode
from shared.frames.manifest_file import read_lines
from shared.native import SWITCH
from shared.plex.library import DATABASE_FOLDER, DATABASES
from shared.plex.sqlite_check import check_database
from shared.wire.protocol import SnapshotRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

_AN_ENTRY = 5120
_COPIES = 3
"""The library, and one copy of each run."""
_VARIANTS = {"native": "1", "Python": "0"}


class Stages:
    """The processor seconds of each stage so far, those of its child processes included."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add what the block takes to ``stage``."""
        before = _processor_seconds()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + _processor_seconds() - before


def main() -> None:
    """Measure each library that the command line names, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--library", nargs="+", choices=SHAPES, default=["l1", "l2", "l3"])
    parser.add_argument("--moved", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.moved:
        print(json.dumps(move(*options.moved)))
        return
    for name in options.library:
        shape = SHAPES[name]
        size = _COPIES * (shape.bytes_total + shape.entries * _AN_ENTRY) + (1 << 30)
        with (
            tempfile.TemporaryDirectory(prefix="plexodus-stages-") as folder,
            fresh_volume(Path(folder), size) as volume,
        ):
            make_library(volume / "Library", shape)
            found = {variant: in_a_process(volume, variant) for variant in _VARIANTS}
        print(_table(name, found), flush=True)


def move(library: Path, place: Path) -> dict[str, float]:
    """Move ``library`` into the empty folder ``place``; return the seconds of each stage."""
    stages, state = Stages(), place / "agent"
    state.mkdir()
    store = SnapshotStore(str(state), CurrentLibrary(str(library), str, str(state)))
    with stages.timed("scan"):
        about = store.scan(SnapshotRequest("cold"))
    with stages.timed("check of the databases"):
        for name in DATABASES:
            check_database(str(library / SERVER / DATABASE_FOLDER / name))
    sides = TwoSides(place, library)
    with stages.timed("manifest is read and checked"):
        listing = sides.read(store.open(about.id))
    staging = sides.begin(listing)
    into = Destination(staging.fd, staging.policy, staging.digests)
    snapshot, manifest, digests = store.open(about.id), listing.manifest, []
    left = Unfinished(manifest)
    for number, frame in enumerate(manifest.plan):
        with stages.timed("frames are built and hashed"):
            built = build_frame(snapshot, number)
        with stages.timed("compression, on slow links"):
            encoded = bytes(encode(built.tar, Encoding.ZSTD))
        with stages.timed("decompression, on slow links"):
            tar = decode(encoded, frame.size, Encoding.ZSTD)
        with stages.timed("frames are hashed and written"):
            place_of = manifest.location(frame.first, frame.count)
            lines = place_of.of(read_lines(manifest.path, place_of.offsets))
            fetched = FetchedFrame(frame, lines, tar, built.tag.hex())
            unpacked = unpack_frame(into, fetched)
            left.add(number, unpacked)
        digests.append((number, unpacked.digest))
    with stages.timed("journal and sync"):
        staging.commit(digests)
    with stages.timed("large files are hashed, agent"):
        complete_digests(snapshot)
    with stages.timed("links, folders and large files, puller"):
        differing = staging.finish(left)
    with stages.timed("SHA256SUMS are made and compared"):
        Path(staging.layout.sums(about.id)).write_bytes(b"".join(sums(snapshot)))
        wrong = list(wrong_sums(manifest, staging.digests, staging.layout.sums(about.id)))
    with stages.timed("second walk of the source"):
        check_unchanged(snapshot)
    if differing or wrong:
        sys.exit(f"the copy of {library} differs: {differing[:1]} {wrong[:1]}")
    return stages.seconds


def _processor_seconds() -> float:
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def in_a_process(volume: Path, variant: str) -> dict[str, float]:
    """Run :func:`move` of the library in ``volume`` in a process of its own.

    The accelerator is chosen when it starts.
    """
    place = volume / variant
    place.mkdir()
    command = [sys.executable, "-m", "bench.stages", "--moved", str(volume / "Library")]
    environment = os.environ | {SWITCH: _VARIANTS[variant]}
    done = subprocess.run([*command, str(place)], check=True, capture_output=True, env=environment)
    seconds: dict[str, float] = json.loads(done.stdout)
    return seconds


def _table(library: str, found: dict[str, dict[str, float]]) -> str:
    totals = {variant: each | {"sum": sum(each.values())} for variant, each in found.items()}
    lines = [f"{library:40}" + "".join(f"{variant:>8}" for variant in totals)]
    for stage in next(iter(totals.values())):
        seconds = "".join(f"{each[stage]:8.2f}" for each in totals.values())
        lines.append(f"{stage:40}{seconds}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
