"""The names of everything on the target volume (docs/protocol.md, "On the volume")."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

from shared.plex.library import SUPPORT_FOLDER
from shared.tree.member_path import STATE_FOLDER

if TYPE_CHECKING:
    from collections.abc import Callable

USUAL_NAME = "Library"
"""Plex's name for its library: checked before the agent has reported the name."""
RECORD_PREFIXES = ("manifest-", "journal-", "digests-", "sums-", "omitted-", "amended-")
"""How the names of the files begin that belong to one snapshot and one pull."""


class Layout:
    """The paths below one target folder."""

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

        def of_snapshot(what: str) -> Callable[[str], str]:
            return lambda snapshot: inside(f"{what}-{snapshot}")

        self.manifest = of_snapshot("manifest")
        """The path of the manifest of the named snapshot, which is under way."""
        self.journal = of_snapshot("journal")
        """Its finished frames."""
        self.digests = of_snapshot("digests")
        """The digests of its unpacked files."""
        self.sums = of_snapshot("sums")
        """The agent's own list of digests."""
        self.omitted = of_snapshot("omitted")
        """The agent's list of what it left out."""
        self.amended = of_snapshot("amended")
        """An edited file that will replace one of the snapshot."""

    def library(self, name: str) -> str:
        """Return the final path of the library."""
        return os.path.join(self.target, name)

    def staged(self, name: str) -> str:
        """Return the path of the library in staging."""
        return os.path.join(self.staging, name)
