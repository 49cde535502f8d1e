"""The parts of a move whose cost grows with the library, each in a process of its own.

``python -m bench.scale_parts PART FOLDER`` measures one of them and prints JSON: processor seconds
of its steps, sizes, and the peak resident size of the process with its interpreter. The parts are
the programs' own functions.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from agent.frames.index import FrameIndex
from agent.snapshots.store import SnapshotStore
from agent.snapshots.whole_tree import check_unchanged
from agent.source.library import CurrentLibrary
from bench.processes import peak_kib
from initpuller.pull.checks.placement import PlexContents
from initpuller.volume.records.journal import Journal
from shared.frames.codec import Encoding
from shared.frames.manifest_file import ManifestFile, Watch, read_manifest, write_manifest
from shared.wire.protocol import SnapshotRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_SIZE = re.compile(rb'"size":\d+')
_BATCH = 4096
_TAG = "5ca1ab1e" * 8
BYTES_AN_ENTRY = 200_000
"""Of a library of 10 TB in 50 million entries."""


class Figures:
    """The figures of one part so far."""

    def __init__(self) -> None:
        self.found: dict[str, float] = {}

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Record the processor seconds of the block as those of ``step``."""
        before = _seconds()
        yield
        self.found[step] = _seconds() - before


def _seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class _Place:
    """The folders and files of one point of the measurement."""

    def __init__(self, folder: Path, library: Path) -> None:
        self.folder = folder
        self.state = str(folder / "state")
        self.declared = str(folder / "declared")
        self.index = str(folder / "index")
        self.journal = str(folder / "journal")
        self.names = folder / "names.json"
        os.makedirs(self.state, exist_ok=True)
        self.store = SnapshotStore(self.state, CurrentLibrary(str(library), str, self.state))
        self.root = os.fsencode(library.name)

    def note(self, **names: str) -> None:
        """Remember names of snapshots for later parts."""
        known = json.loads(self.names.read_text()) if self.names.exists() else {}
        self.names.write_text(json.dumps(known | names))

    def name(self, of: str) -> str:
        """Return a name that an earlier part has noted."""
        found: str = json.loads(self.names.read_text())[of]
        return found


def scan(place: _Place, figures: Figures) -> None:
    """Measure the agent's first scan."""
    with figures.timed("scan"):
        about = place.store.scan(SnapshotRequest("live"))
    place.note(live=about.id)
    folder = Path(place.state, "snapshots", about.id)
    figures.found |= {
        "entries": about.entries,
        "frames": about.frames,
        "manifest_bytes": about.manifest_bytes,
        "omitted_bytes": about.omitted.bytes if about.omitted is not None else 0,
        "state_bytes": sum(each.stat().st_size for each in folder.iterdir()),
    }


def delta(place: _Place, figures: Figures) -> None:
    """Measure the scan with Plex stopped, if nothing has changed."""
    with figures.timed("delta"):
        about = place.store.scan(SnapshotRequest("cold", base=place.name("live")))
    place.note(cold=about.id)
    figures.found["frames_of_delta"] = about.frames


def second_walk(place: _Place, figures: Figures) -> None:
    """Measure a snapshot after the agent's restart, and the comparison with the library."""
    with figures.timed("open"):
        snapshot = place.store.open(place.name("live"))
    with figures.timed("second walk"):
        check_unchanged(snapshot)


def read(place: _Place, figures: Figures) -> None:
    """Measure the puller's check of the manifest."""
    path = place.folder / "manifest"
    name = place.name("live")
    shutil.copyfile(Path(place.state, "snapshots", name, "manifest.jsonl.zst"), path)
    contents = PlexContents(os.fsdecode(place.root), "/")
    watch = Watch(contents.add, contents.top, contents.paths)
    with figures.timed("read"):
        manifest = read_manifest(str(path), name, place.root, "live", watch)
    figures.found["plan_bytes"] = 32.0 * len(manifest.plan)


def declare(place: _Place, figures: Figures) -> None:
    """Write a manifest of the same entries in which files are so large that 10 TB are 50 million.

    Write the journal of a puller that has all of its frames. Nothing of this is measured, except
    sizes.
    """
    snapshot = place.store.open(place.name("live"))
    plan = snapshot.manifest.plan
    size = b'"size":%d' % (BYTES_AN_ENTRY * plan.entries // plan.files)
    lines = (_SIZE.sub(size, text) for _, text in snapshot.manifest.pieces())
    made = write_manifest(place.declared, place.root, lines)
    journal = Journal(place.journal, len(made.plan))
    for first in range(0, len(made.plan), _BATCH):
        numbers = range(first, min(len(made.plan), first + _BATCH))
        journal.done((number, _TAG) for number in numbers)
    journal.close()
    place.note(declared=made.name)
    figures.found |= {
        "declared_bytes": made.plan.content_bytes,
        "declared_frames": len(made.plan),
        "journal_bytes": os.path.getsize(place.journal),
    }


def agent_plan(place: _Place, figures: Figures) -> None:
    """Measure the plan of the declared library in the agent, with the index of an archive."""
    manifest = _declared(place, figures)
    with figures.timed("index"):
        index = FrameIndex(place.index, manifest.plan, Encoding.ZSTD)
    figures.found["index_bytes"] = os.path.getsize(place.index)
    if index.size is not None:
        sys.exit("the index of a new archive knows all lengths")


def puller_plan(place: _Place, figures: Figures) -> None:
    """Measure the plan of the declared library in the puller, with its journal."""
    manifest = _declared(place, figures)
    with figures.timed("replay"):
        journal = Journal(place.journal, len(manifest.plan))
    if len(journal) != len(manifest.plan):
        sys.exit("the journal lacks frames")
    journal.close()


def _declared(place: _Place, figures: Figures) -> ManifestFile:
    with figures.timed("read"):
        return read_manifest(place.declared, place.name("declared"), place.root)


PARTS: dict[str, Callable[[_Place, Figures], None]] = {
    "scan": scan,
    "delta": delta,
    "second-walk": second_walk,
    "read": read,
    "declare": declare,
    "agent-plan": agent_plan,
    "puller-plan": puller_plan,
}
"""All parts, in an order in which each finds what it needs."""


def main() -> None:
    """Measure the part that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("library", type=Path)
    options = parser.parse_args()
    figures = Figures()
    PARTS[options.part](_Place(options.folder, options.library), figures)
    figures.found["peak_mib"] = peak_kib(os.getpid()) / 1024
    print(json.dumps(figures.found))


if __name__ == "__main__":
    main()
