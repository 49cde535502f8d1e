"""Trees of many entries: a small Plex library, again and again below one folder."""

from __future__ import annotations

import os
import subprocess
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.plexlibrary import SERVER, LibraryShape, make_library

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MOST_IN_A_PART = 5_000
BYTES_AN_ENTRY = 2_000
_DATABASE = 400_000


@dataclass(frozen=True)
class _Part:
    """The entries of a small library, parents first, with paths below its own folder."""

    folders: list[str]
    links: list[tuple[str, str]]
    files: list[tuple[str, bytes]]

    @property
    def entries(self) -> int:
        """Number of entries, its own folder included."""
        return len(self.folders) + len(self.links) + len(self.files)


def make_tree(library: Path, entries: int) -> None:
    """Make the folder ``library`` with about so many entries.

    It is a small Plex library, with copies of itself in its folder of metadata.
    """
    size = min(entries, _MOST_IN_A_PART)
    make_library(library, LibraryShape(size, size * BYTES_AN_ENTRY, _DATABASE))
    part = _read(str(library))
    for number in range(1, round(entries / part.entries)):
        _write(f"{library}/{SERVER}/Metadata/{number:05}", part)


@contextmanager
def repeated(tree: Path, times: int) -> Iterator[Path]:
    """Yield a library with the folder ``tree`` mounted so many times in it (as root)."""
    library = tree.parent / "repeated" / "Library"
    with ExitStack() as stack:
        for number in range(times):
            place = library / f"{number:05}"
            place.mkdir(parents=True)
            _run("mount", "--bind", tree, place)
            stack.callback(_run, "umount", place)
        yield library


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True)


def _read(top: str) -> _Part:
    part = _Part([], [], [])
    for where, folders, names in os.walk(top):
        below = where[len(top) :]
        part.folders.append(below)
        for name in (*folders, *names):
            path = f"{where}/{name}"
            if os.path.islink(path):
                part.links.append((f"{below}/{name}", os.readlink(path)))
        for name in names:
            if not os.path.islink(f"{where}/{name}"):
                with open(f"{where}/{name}", "rb") as file:
                    part.files.append((f"{below}/{name}", file.read()))
    return part


def _write(top: str, part: _Part) -> None:
    for path in part.folders:
        os.mkdir(top + path)
    for path, target in part.links:
        os.symlink(target, top + path)
    for path, content in part.files:
        with open(top + path, "xb", buffering=0) as file:
            file.write(content)
