"""The names of everything on the target volume (docs/protocol.md, "On the volume")."""

from __future__ import annotations

import os
from functools import partial

from shared.plex.library import SUPPORT_FOLDER
from shared.tree.member_path import STATE_FOLDER

USUAL_NAME = "Library"
"""Plex's name for its library: checked before the agent has reported the name."""
RECORD_PREFIXES = ("manifest-", "journal-", "digests-", "sums-", "omitted-", "amended-")
"""How the names of the files begin that belong to one snapshot and one pull."""


class Layout:
    """The paths below one target folder.

    Args:
        target: path of the folder.
    """

    def __init__(self, target: str) -> None:
        ours = STATE_FOLDER.decode()
        self.target = target
        self.places_server = not target.endswith(f"/{SUPPORT_FOLDER}")
        """Plex's own folder arrives with the folders above it that Plex's image expects."""
        self.folder = os.path.join(target, ours)
        """The puller's own folder."""
        inside = partial(os.path.join, self.folder)
        self.lock = inside("lock")
        """Held by the process that writes to the volume."""
        self.staging = inside("staging")
        """The folder in which the library is assembled."""
        self.moving = os.path.join(self.staging, ours)
        """A folder in staging for probes; earlier releases put files there as well."""
        self.probes = self.moving, inside("probe")
        """Where the volume is probed: in staging if that is there, otherwise beside it."""
        self.published_probe = f"{self.folder}-probe"
        """Where a probe tries the rename that publishes."""
        self.state = inside("state.json")
        """Phase and snapshot."""
        self.receipt = inside("receipt.json")
        """The proof."""
        self.receipt_manifest = inside("manifest.jsonl.zst")
        """All entries that were moved."""
        self.receipt_sums = inside("SHA256SUMS")
        """The digest of every file that was moved."""
        self.receipt_omitted = inside("omitted.jsonl.zst")
        """All entries that were left out."""
        self.trash = inside("trash-was-on")
        """The note that Plex's emptying of trash was on before new folders."""
        self.migrated = inside("migrated.json")
        """The findings of Plex's first run on this volume."""

    def manifest(self, snapshot: str) -> str:
        """Return the path of the manifest of a snapshot that is under way."""
        return self._of(snapshot, "manifest")

    def journal(self, snapshot: str) -> str:
        """Return the path of its finished frames."""
        return self._of(snapshot, "journal")

    def digests(self, snapshot: str) -> str:
        """Return the path of the digests of its unpacked files."""
        return self._of(snapshot, "digests")

    def sums(self, snapshot: str) -> str:
        """Return the path of the agent's own list of digests."""
        return self._of(snapshot, "sums")

    def omitted(self, snapshot: str) -> str:
        """Return the path of the agent's list of what it left out."""
        return self._of(snapshot, "omitted")

    def amended(self, snapshot: str) -> str:
        """Return the path of the edited file that will replace one of the snapshot."""
        return self._of(snapshot, "amended")

    def library(self, name: str) -> str:
        """Return the final path of the library."""
        return os.path.join(self.target, name)

    def staged(self, name: str) -> str:
        """Return the path of the library in staging."""
        return os.path.join(self.staging, name)

    def _of(self, snapshot: str, what: str) -> str:
        return os.path.join(self.folder, f"{what}-{snapshot}")
