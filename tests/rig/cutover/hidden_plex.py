"""An idle Plex that the agent cannot see, as one in a container with its own namespaces.

Its processes have no name of Plex's, and it listens on no port. Only the lock on its database shows
that it runs. It changes nothing, as a Plex that nobody uses.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rig.plex.commands import PlexCommands, only_plex
from shared.plex.library import DATABASE_FOLDER, DATABASES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PROGRAM = """
import ctypes, os, signal, sqlite3, sys
if os.geteuid() == 0:  # root's SQLite changes the owner of a -wal, and so its ctime
    os.seteuid(65534)
    ctypes.CDLL(None).setfsuid(0)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("PRAGMA journal_mode = WAL")
database.execute("SELECT count(*) FROM sqlite_master").fetchall()
with open(sys.argv[2] + ".new", "w") as file:
    file.write(str(os.getpid()))
os.rename(sys.argv[2] + ".new", sys.argv[2])
signal.sigwait({signal.SIGTERM})
database.close()
"""
_START = """\
#!/bin/sh
[ -e "{here}/pid" ] && exit 0
echo start >> "{here}/story"
setsid "{python}" "{here}/program" "{database}" "{here}/pid" </dev/null >"{here}/said" 2>&1 &
while ! [ -s "{here}/pid" ]; do sleep 0.01; done
"""
_STOP = """\
#!/bin/sh
echo stop >> "{here}/story"
pid=$(cat "{here}/pid") || exit 0
kill {signal} "$pid"
while kill -0 "$pid" 2>/dev/null && ! grep -q "^State:.Z" "/proc/$pid/status"; do sleep 0.01; done
rm -f "{here}/pid"
"""


class HiddenPlex(PlexCommands):
    """One such Plex, with its commands."""

    @property
    def database(self) -> Path:
        """The database that it has open while it runs."""
        return self.server / DATABASE_FOLDER / DATABASES[0]

    def stops_nothing(self) -> None:
        """Have the stop command succeed without a stop, as for a wrong name of a container."""
        self._write("stop", '#!/bin/sh\necho stop >> "{here}/story"\n')

    def is_killed(self) -> None:
        """Have the stop command kill it, so that a ``-wal`` and a ``-shm`` are left."""
        self._write("stop", _STOP, signal="-KILL")

    def make(self) -> None:
        """Write the program and its two commands."""
        self.here.mkdir()
        self._write("program", "{program}")
        self._write("start", _START)
        self._write("stop", _STOP, signal="-TERM")

    def _write(self, name: str, text: str, **words: str) -> None:
        words |= {"here": str(self.here), "python": sys.executable, "program": _PROGRAM}
        (self.here / name).write_text(text.format(database=self.database, **words))
        (self.here / name).chmod(0o755)


@contextmanager
def hidden_plex(folder: Path, server: Path) -> Iterator[HiddenPlex]:
    """A Plex that runs unseen on the folder ``server``; it is gone at the end."""
    plex = HiddenPlex(folder, server)
    plex.make()
    with only_plex():
        plex.start()
        try:
            yield plex
        finally:
            if plex.is_running():
                os.kill(int((folder / "pid").read_text()), signal.SIGKILL)
