"""Plex on the VM: the stand-in behind a fence, as its unit is, which keeps a copy of each stop."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rig.plex import standin
from rig.plex.commands import SERVER, PlexCommands

if TYPE_CHECKING:
    from collections.abc import Sequence

_ARGV0 = "/usr/lib/plexmediaserver/Plex Media Server"
"""By this the agent knows Plex's processes."""
_START = """\
#!/bin/sh
unset LD_PRELOAD
exec 9>"{here}/lock"
flock 9
[ -e "{here}/pid" ] && kill -0 "$(cat "{here}/pid")" 2>/dev/null && exit 0
rm -f "{here}/decided"
PYTHONHOME="{home}" setsid bash -c 'exec -a "$1" bash "$0/run"' "{here}" "{argv0}" \\
    9>&- </dev/null >"{here}/said" 2>&1 &
while ! [ -e "{here}/decided" ]; do sleep 0.01; done
pid=$(cat "{here}/pid" 2>/dev/null) || exit 0
while grep -qsxzF "{here}/run" "/proc/$pid/cmdline"; do sleep 0.01; done
"""
"""It ends once the fence has prevented Plex, or once the shell has become Plex."""
_RUN = """\
echo $$ > "{here}/pid"
for fence in {fences}; do
    if [ -e "$fence" ]; then
        rm -f "{here}/pid"
        echo skipped >> "{here}/story"
        : > "{here}/decided"
        exit 0
    fi
done
echo start >> "{here}/story"
: > "{here}/decided"
exec -a "{argv0}" "{python}" "{program}" "{server}" {files}
"""
"""The process is visible before it checks the fence, as a starting unit is."""
_STOP = """\
#!/bin/sh
unset LD_PRELOAD
exec 9>"{here}/lock"
flock 9
echo stop >> "{here}/story"
if pid=$(cat "{here}/pid" 2>/dev/null); then
    kill "$pid" 2>/dev/null
    while kill -0 "$pid" 2>/dev/null && ! grep -qs "^State:.Z" "/proc/$pid/status"; do
        sleep 0.01
    done
    rm -f "{here}/pid"
fi
"{here}/keep"
"""
"""The agent's calls may fail by a preloaded library. Those of Plex, and of this copy, do not."""
_KEEP = """\
#!/bin/sh
set -e
number=$(ls "{here}/stops" | wc -l)
cp -a --reflink=auto "{library}" "{here}/stops/part"
mv "{here}/stops/part" "{here}/stops/$number"
"""


@dataclass(frozen=True)
class FencedPlex(PlexCommands):
    """One stand-in, which does not start while its fence is up."""

    @property
    def stops(self) -> int:
        """Return how many copies of the library there are, one for each end of Plex."""
        return sum(each.name.isdigit() for each in (self.here / "stops").iterdir())

    def stop_copy(self, number: int) -> Path:
        """Return the copy that was made as the ``number``-th, counted from 1."""
        return self.here / "stops" / str(number - 1)

    def keep(self) -> None:
        """Copy the library of a Plex that was killed, as at each stop."""
        subprocess.run(["flock", self.here / "lock", self.here / "keep"], check=True)

    def processes(self) -> list[int]:
        """Return the process ids of every stand-in on this library."""
        return processes_on(self.server)


def processes_on(server: Path) -> list[int]:
    """Return the process ids of every stand-in on Plex's folder ``server``."""
    marks = (standin.__file__.encode(), bytes(server))
    found = []
    for each in Path("/proc").iterdir():
        try:
            words = (each / "cmdline").read_bytes().split(b"\0") if each.name.isdigit() else []
        except OSError:  # it has just ended
            continue
        if all(mark in words for mark in marks):  # a dead process has no command line
            found.append(int(each.name))
    return found


def make_plex(folder: Path, library: Path, fences: Sequence[Path], files: int) -> FencedPlex:
    """Return a stand-in for ``library`` that is not running.

    Args:
        folder: its own folder, which is created.
        library: the folder that it writes below.
        fences: files that keep it from starting.
        files: number of files that it writes over, besides its own.
    """
    (folder / "stops").mkdir(parents=True)
    plex = FencedPlex(folder, library / SERVER)
    words = {
        "here": folder,
        "argv0": _ARGV0,
        "python": sys.executable,
        "home": sys.base_prefix,
        "program": standin.__file__,
        "server": plex.server,
        "library": library,
        "files": files,
        "fences": " ".join(f'"{each}"' for each in fences),
    }
    for name, text in (("start", _START), ("run", _RUN), ("stop", _STOP), ("keep", _KEEP)):
        (folder / name).write_text(text.format(**words))
        (folder / name).chmod(0o755)
    return plex
