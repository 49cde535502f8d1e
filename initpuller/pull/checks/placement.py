"""Check that a Plex that starts on the volume will find its files, from the manifest."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from shared.checks import CheckId, Outcome, some
from shared.errors import PreflightRefused, printable
from shared.plex.library import (
    SUPPORT_FOLDER,
    is_server_name,
    needed_files,
    needed_paths,
    server_folder,
)
from shared.tree.manifest import Kind, leads_out

if TYPE_CHECKING:
    from initpuller.volume.records.layout import Layout
    from shared.checks import Check
    from shared.tree.manifest import Entry

_LISTED = 5
_FILES = (Kind.FILE, Kind.HARDLINK)
"""Entries that are regular files on the volume."""


class PlexContents:
    """Entries of a snapshot that decide whether Plex finds its files.

    Args:
        name: the library's name in the snapshot.
        source: the library's path on the VM.
    """

    def __init__(self, name: str, source: str) -> None:
        root, server = os.fsencode(name), os.fsencode(server_folder(name) or name)
        is_placed = name != os.path.basename(source) and is_server_name(os.path.basename(source))
        self.top = server if is_placed else root
        """Path that no symlink may lead out of."""
        self._missing = {os.fsencode(path) for path in needed_files(name)}
        self._needed = frozenset(map(os.fsencode, needed_paths(name)))
        self.paths = self._needed.union(self._missing)
        """Paths whose entries have to be added. Of others, only symlinks that lead out do."""
        self._links: list[str] = []
        self.links_out = 0
        """Number of symlinks that lead out of the library."""
        self.some_links_out: list[str] = []
        """The first few, as ``path -> target``."""

    def add(self, entry: Entry) -> None:
        """Add the next entry of those that a :class:`shared.frames.manifest_file.Watch` sees."""
        if entry.kind in _FILES:
            self._missing.discard(entry.path)
        if entry.kind is not Kind.SYMLINK:
            return
        path, target = printable(entry.path), printable(entry.link)
        if entry.path in self._needed:
            self._links.append(f"{path} is a symlink to {target}")
        if leads_out(entry, self.top):
            self.links_out += 1
            if len(self.some_links_out) < _LISTED:
                self.some_links_out.append(f"{path} -> {target}")

    def refuse_incomplete(self) -> None:
        """Raise PreflightRefused if a file that Plex needs is missing, or is a symlink."""
        if self._links:
            raise PreflightRefused(
                f"files that Plex needs would not move: {some(self._links)}",
                hint="A pull moves a symlink as it is, so what it leads to would stay on the VM."
                " Replace it by the folder or file itself, or by a bind mount (mount --bind), and"
                " retry.",
            )
        if self._missing:
            missing = sorted(printable(path) for path in self._missing)
            raise PreflightRefused(
                f"Plex would start as a new server, because the snapshot lacks {some(missing)}",
                hint="Serve the folder of a Plex that has been started, and exclude none of these."
                " To move a folder that is not Plex's, add --no-cutover.",
            )


def check_place(layout: Layout, name: str) -> Check:
    """Return whether the library of this name arrives where Plex's image looks for it."""
    final = layout.library(name)
    server = server_folder(final)
    if server is None:
        found = f"the library arrives as {final}, where no Plex looks for it"
        return CheckId.PLACEMENT.warning(found, "A pull with a cutover is refused.")
    if is_server_name(name) == layout.places_server:
        volume = layout.target.removesuffix(SUPPORT_FOLDER)
        found = f"the library would arrive as {final}, where no Plex looks for it"
        return CheckId.PLACEMENT.failure(found, f"Give --target {volume}.")
    return CheckId.PLACEMENT.passed(f"Plex's own folder arrives as {server}")


def refuse_misplaced(layout: Layout, name: str) -> None:
    """Raise PreflightRefused if the library would arrive where no Plex's image looks for it."""
    place = check_place(layout, name)
    if place.outcome is not Outcome.PASS:
        raise PreflightRefused(
            place.found,
            hint="Give the agent the folder called Library, or Plex Media Server, and the puller"
            " the volume as --target. To move a folder that is not Plex's, add --no-cutover.",
        )
