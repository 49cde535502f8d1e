"""How long Plex is down for a move, and what the delta costs on the wire, while it writes.

``make bench-downtime``: L1 is moved with a stand-in for Plex that runs, changes 1 % of the entries
and writes 200 rows a second into its database; beside it the usual way S (Plex is stopped, tar,
http.server, curl) moves the same. Downtime is from the end of Plex's process to the receipt.

Then the delta: the same move again, but the puller is held as soon as Plex has stopped, until
source and staging were compared. And a move with a further database of 4 GB, 0.1 % of whose pages
Plex changes when it is stopped.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import sqlite3
import statistics
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rig.cutover.deltas import sent_bytes
from rig.plex.commands import plex_commands
from rig.programs import Agent, Puller, running

from bench.link import Link
from bench.peers import PEERS, Job
from bench.plexlibrary import SERVER, SHAPES, LibraryShape, make_library
from bench.volume import fresh_volume

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

_SMOKE = LibraryShape(1_500, 30_000_000, 6_000_000)
_SHARE = 100
"""One of so many entries is changed."""
_ROOM = 5
_AN_ENTRY = 5120
_FRAME = 4 << 20
_PIECE = 32 << 10
_RACY = 2.1
_SLOWEST = 4 * 1024 * 1024
"""Bytes a second that a write to a large file is given time for, see ``shared/tree/racy.py``."""
_LEASE = 600.0
_PAGES = 1000
"""One of so many pages of the database is changed."""
_PAGE, _ROW = 1024, 900
"""Bytes of a page, as Plex has them, and of a row that fills one."""


@dataclass(frozen=True)
class Move:
    """One of a library whose Plex runs."""

    seconds: float
    """Downtime."""
    before: float
    """Seconds of the pull until Plex was stopped."""
    sent: int
    """Bytes of bodies that the agent sent after that."""
    changed: int
    """Bytes that had to be brought then; 0 if nobody looked."""


def main() -> None:
    """Measure, and print."""
    shapes = SHAPES | {"smoke": _SMOKE}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--library", choices=shapes, default="l1")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--database", type=int, default=4_000_000_000, metavar="BYTES")
    parser.add_argument("--alone", action="store_true", help="without S")
    parser.add_argument("--folder", type=Path, help="where to work (default: as tempfile has it)")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # nothing is left mounted
    folder = Path(tempfile.mkdtemp(prefix="plexodus-bench-", dir=options.folder))
    try:
        rounds = [
            _one_round(folder, shapes[options.library], alone=options.alone)
            for _ in range(options.rounds)
        ]
        _report("down", "s", [move.seconds for move, _ in rounds])
        if not options.alone:
            _report("of S", "%", [100 * move.seconds / usual for move, usual in rounds])
        _delta(folder, shapes[options.library])
        _database(folder, options.database)
    finally:
        shutil.rmtree(folder)


def _report(what: str, unit: str, each: list[float]) -> None:
    print(
        f"{what}: median {statistics.median(each):.2f} {unit} ({min(each):.2f} to {max(each):.2f})"
    )


def _one_round(folder: Path, shape: LibraryShape, *, alone: bool) -> tuple[Move, float]:
    """Our downtime, and the seconds that S takes (or 0)."""
    with _volume(folder, shape) as volume:
        library = volume / "vm" / "Library"
        _settled_library(library, shape)
        ours = measure(volume, library, shape.entries // _SHARE, look=False)
        job = Job(library, volume / "S", Link())
        _made(job.target)
        usual = 0.0 if alone else PEERS["S"](job).seconds
        print(
            f"down for {ours.seconds:.2f} s after {ours.before:.1f} s, S takes {usual:.1f} s",
            flush=True,
        )
        return ours, usual


def _delta(folder: Path, shape: LibraryShape) -> None:
    with _volume(folder, shape) as volume:
        library = volume / "vm" / "Library"
        _settled_library(library, shape)
        move = measure(volume, library, shape.entries // _SHARE, look=True)
        records = volume / "config" / ".plexodus"
        lists = sum(
            (records / name).stat().st_size for name in ("manifest.jsonl.zst", "SHA256SUMS")
        )
        frames = move.sent - lists
        print(
            f"delta: {frames} bytes in frames for {move.changed} changed"
            f" ({frames / move.changed:.2f}), {lists} of manifest and digests beside them",
            flush=True,
        )


def _database(folder: Path, size: int) -> None:
    """Measure a move whose database of ``size`` bytes changes a little when Plex is stopped."""
    with _volume(folder, LibraryShape(_SMOKE.entries, 2 * size, 0)) as volume:
        library = volume / "vm" / "Library"
        _settled_library(library, _SMOKE)
        path = library / SERVER / "Plug-in Support" / "Databases" / "large.db"
        pages = _make_database(path, size)
        change = f"from bench.downtime import change_pages; change_pages({str(path)!r}, {pages})"
        at_stop = shlex.join([sys.executable, "-c", change])
        move = measure(volume, library, _SMOKE.entries // _SHARE, look=False, at_stop=at_stop)
        length = path.stat().st_size
        cached = _read_seconds(path)
        fd = os.open(path, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)
        print(
            f"database of {length} bytes: down for {move.seconds:.2f} s, {move.sent} bytes sent"
            f" ({100 * move.sent / length:.2f} %); to read it takes {cached:.2f} s from memory and"
            f" {_read_seconds(path):.2f} s from the disk",
            flush=True,
        )


def _read_seconds(path: Path) -> float:
    begun, buffer = time.monotonic(), bytearray(1 << 20)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
    return time.monotonic() - begun


def _make_database(path: Path, size: int) -> int:
    """Make one of so many bytes, with a random row in each page; return the number of rows."""
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(f"PRAGMA page_size={_PAGE}")
        database.execute("CREATE TABLE page (id INTEGER PRIMARY KEY, what BLOB)")
        rows = size // _PAGE
        database.executemany(
            "INSERT INTO page(what) VALUES(?)", ((os.urandom(_ROW),) for _ in range(rows))
        )
    return rows


def change_pages(path: str, pages: int) -> None:
    """Change one of :data:`_PAGES` pages, all over the file."""
    with closing(sqlite3.connect(path)) as database, database:
        database.executemany(
            "UPDATE page SET what = ? WHERE id = ?",
            ((os.urandom(_ROW), 1 + number) for number in range(0, pages, _PAGES)),
        )


def measure(
    volume: Path,
    library: Path,
    files: int,
    *,
    look: bool,
    at_stop: str = "",
) -> Move:
    """Move ``library``, in which Plex goes on changing so many ``files``.

    Args:
        volume: where there is room for everything.
        library: the source.
        files: of the source; the stand-in writes over them all the time.
        look: hold the puller as soon as Plex has stopped, and count what there is to bring.
        at_stop: a command that Plex's stop command runs first.
    """
    agent = Agent(volume / "state", library, volume / "agent.log")
    target = _made(volume / "config")
    with plex_commands(volume / "plex", library / SERVER, files) as plex:
        puller = Puller(target, volume / "puller.log", agent.pair(), cutover=True)
        stop = plex.here / "stop"
        stop.write_text(stop.read_text().replace("\n", f"\n{at_stop}\n", 1))
        agent.settings = plex.settings(volume, lease_seconds=_LEASE)
        with running(agent):
            begun = time.time()
            process = puller.begin()
            plex.wait_until(running=False, seconds=600)
            stopped, before, changed = time.time(), sent_bytes(agent), 0
            if look:
                process.send_signal(signal.SIGSTOP)
                changed = _changed(library, target / ".plexodus" / "staging" / "Library")
                process.send_signal(signal.SIGCONT)
            done = puller.finished(process)
            sent = sent_bytes(agent) - before
    if done.code != 0:
        raise RuntimeError(done.text)
    receipt = (target / ".plexodus" / "receipt.json").stat().st_mtime
    return Move(receipt - stopped, stopped - begun, sent, changed)


def _changed(source: Path, target: Path) -> int:
    """Bytes of ``source`` that ``target`` has not: whole files, pieces of those over a frame."""
    changed = 0
    for folder, _, names in os.walk(source):
        for name in names:
            path = Path(folder) / name
            copy = target / path.relative_to(source)
            if path.is_symlink() or not path.is_file():
                continue
            size = path.stat().st_size
            if size > _FRAME and copy.exists():
                changed += _changed_pieces(path, copy)
            elif not copy.exists() or path.read_bytes() != copy.read_bytes():
                changed += size
    return changed


def _changed_pieces(path: Path, copy: Path) -> int:
    changed = 0
    with path.open("rb") as source, copy.open("rb") as target:
        while piece := source.read(_PIECE):
            if piece != target.read(_PIECE):
                changed += len(piece)
    return changed


def _volume(folder: Path, shape: LibraryShape) -> AbstractContextManager[Path]:
    return fresh_volume(folder, _ROOM * (shape.bytes_total + shape.entries * _AN_ENTRY))


def _settled_library(library: Path, shape: LibraryShape) -> None:
    """As on a VM of its own: that it was made is no work that goes on during the measurement.

    Nor is it a change that a live scan would find too young to trust.
    """
    make_library(library, shape)
    os.sync()
    sizes = (path.lstat().st_size for path in library.rglob("*") if path.suffix != ".db")
    time.sleep(_RACY + max(sizes) / _SLOWEST)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


if __name__ == "__main__":
    main()
