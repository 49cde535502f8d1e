"""A stand-in for Plex Media Server: a process that writes into its library all the time.

::

    standin.py SERVER [FILES]   as `Plex Media Server` would be started, on its own folder

It keeps a database in WAL mode open and writes 200 rows a second into it; it makes, changes,
renames and removes files, and writes over FILES of those that were there, round and round. SIGTERM
ends it as Plex ends: the database is closed, so its -wal is gone; SIGKILL leaves it.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import sys
import time
from pathlib import Path
from types import FrameType  # noqa: TC003 - nothing else is imported: it runs on a bare VM

DATABASE = "Plug-in Support/Databases/com.plexapp.plugins.library.db"
_TABLE = "CREATE TABLE IF NOT EXISTS standin (id INTEGER PRIMARY KEY, at REAL, what TEXT)"
_PAUSE = 0.005
_FILES = 40


def main(server: Path, files: int = 0) -> None:
    """Write until SIGTERM."""
    stopped: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        stopped.append(number)

    signal.signal(signal.SIGTERM, stop)
    chance = random.Random(os.getpid())  # noqa: S311 - not for keeping secrets
    folder = server / "Metadata" / "written"
    folder.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(server / DATABASE, isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute(_TABLE)
    there = [path for path in sorted(server.rglob("*.jpg")) if not path.is_symlink()][:files]
    turn = 0
    while not stopped:
        database.execute("INSERT INTO standin(at, what) VALUES(?, ?)", (time.time(), "x" * 200))
        _change(folder, chance)
        if there:
            _write_over(there[turn % len(there)], chance)
        turn += 1
        time.sleep(_PAUSE)
    database.close()


def _write_over(path: Path, chance: random.Random) -> None:
    with path.open("r+b") as file:
        file.write(chance.randbytes(16))


def _change(folder: Path, chance: random.Random) -> None:
    path = folder / f"file{chance.randrange(_FILES)}"
    what = chance.randrange(4)
    if what == 0:
        path.unlink(missing_ok=True)
    elif what == 1 and path.exists():
        path.rename(folder / f"file{chance.randrange(_FILES)}")
    elif what == 2 and path.exists():
        _write_over(path, chance)
    else:
        path.write_bytes(chance.randbytes(chance.randrange(20_000)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
