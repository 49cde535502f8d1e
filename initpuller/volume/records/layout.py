"""The names of everything on the target volume (docs/protocol.md, "On the volume")."""

from __future__ import annotations

import os
from dataclasses import dataclass

from shared.plex.library import SUPPORT_FOLDER
from shared.tree.member_path import STATE_FOLDER

USUAL_NAME = "Library"
"""What Plex calls its library: looked for before the agent has told the name."""
RECORD_PREFIXES = ("manifest-", "journal-", "digests-", "sums-", "omitted-", "amended-")
"""How the names of the files begin that belong to one snapshot and one pull."""


@dataclass(frozen=True)
class Layout:
    """The names below one target folder."""

    target: str

    @property
    def places_server(self) -> bool:
        """Whether Plex's own folder arrives with the folders above it that Plex's image expects."""
        return not self.target.endswith(f"/{SUPPORT_FOLDER}")

    @property
    def folder(self) -> str:
        """The puller's own folder."""
        return os.path.join(self.target, STATE_FOLDER.decode())

    @property
    def lock(self) -> str:
        """Held by who writes to the volume."""
        return os.path.join(self.folder, "lock")

    @property
    def staging(self) -> str:
        """Where the library is assembled."""
        return os.path.join(self.folder, "staging")

    @property
    def moving(self) -> str:
        """A folder in staging for probes; earlier releases put files there as well."""
        return os.path.join(self.staging, STATE_FOLDER.decode())

    @property
    def probes(self) -> tuple[str, str]:
        """Where the volume is probed: in staging once it is there, else beside where it will be."""
        return self.moving, os.path.join(self.folder, "probe")

    @property
    def published_probe(self) -> str:
        """Where a probe tries the rename that publishes."""
        return os.path.join(self.target, f"{STATE_FOLDER.decode()}-probe")

    @property
    def state(self) -> str:
        """Phase and snapshot."""
        return os.path.join(self.folder, "state.json")

    @property
    def receipt(self) -> str:
        """The proof."""
        return os.path.join(self.folder, "receipt.json")

    @property
    def receipt_manifest(self) -> str:
        """All entries that were moved."""
        return os.path.join(self.folder, "manifest.jsonl.zst")

    @property
    def receipt_sums(self) -> str:
        """The digest of every file that was moved."""
        return os.path.join(self.folder, "SHA256SUMS")

    @property
    def receipt_omitted(self) -> str:
        """Return the path of the list of omitted entries."""
        return os.path.join(self.folder, "omitted.jsonl.zst")

    @property
    def trash(self) -> str:
        """Return the path of the note that Plex's emptying of trash was on before new folders."""
        return os.path.join(self.folder, "trash-was-on")

    @property
    def migrated(self) -> str:
        """Return the path of the findings of Plex's first run on this volume."""
        return os.path.join(self.folder, "migrated.json")

    def manifest(self, snapshot: str) -> str:
        """The manifest of a snapshot that is under way."""
        return os.path.join(self.folder, f"manifest-{snapshot}")

    def journal(self, snapshot: str) -> str:
        """Its finished frames."""
        return os.path.join(self.folder, f"journal-{snapshot}")

    def digests(self, snapshot: str) -> str:
        """The digests of its unpacked files."""
        return os.path.join(self.folder, f"digests-{snapshot}")

    def sums(self, snapshot: str) -> str:
        """The agent's own list of digests."""
        return os.path.join(self.folder, f"sums-{snapshot}")

    def omitted(self, snapshot: str) -> str:
        """The agent's list of what it left out."""
        return os.path.join(self.folder, f"omitted-{snapshot}")

    def amended(self, snapshot: str) -> str:
        """Return the path of the edited file that will replace one of the snapshot."""
        return os.path.join(self.folder, f"amended-{snapshot}")

    def library(self, name: str) -> str:
        """The final name."""
        return os.path.join(self.target, name)

    def staged(self, name: str) -> str:
        """The same, in staging."""
        return os.path.join(self.staging, name)
