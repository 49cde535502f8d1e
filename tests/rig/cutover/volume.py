"""Volumes of a cluster, and the options of a pull onto one of them."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from initpuller.pull.options import Mode
from initpuller.volume.decision import OnExisting
from initpuller.volume.records.layout import Layout
from initpuller.volume.records.receipt import Receipt, load_receipt
from initpuller.volume.records.state import load_state

if TYPE_CHECKING:
    from pathlib import Path


class Volume:
    """One volume of the cluster.

    Args:
        target: an empty folder.
    """

    def __init__(self, target: Path) -> None:
        target.mkdir(parents=True)
        self.layout = Layout(str(target))
        self.library = target / "Library"
        self.is_given_up = False
        """Whether the administrator undid the move onto this volume afterwards."""
        self.committed_as: dict[str, str] = {}
        """Digest of the library when the commit of a snapshot was first asked for, by snapshot."""
        self.published_as = ""
        """Digest of the library after the first pull that has published it; empty before."""
        self.foreign: set[int] = set()
        """Inode of each foreign folder that nobody has removed."""
        self.expected: int | None = None
        """Inode at the library's name when the pull under way began, or since a person changed it.

        None if nothing is there.
        """

    @property
    def phase(self) -> str:
        """Return the phase in the record."""
        state = load_state(self.layout)
        return state.phase if state is not None else "none"

    @property
    def receipt(self) -> Receipt | None:
        """The receipt of a move; None without one, or with only a rehearsal's."""
        receipt = load_receipt(self.layout)
        return None if receipt is None or receipt.rehearsal else receipt

    @property
    def has_rehearsal(self) -> bool:
        """Whether the receipt is that of a rehearsal."""
        receipt = load_receipt(self.layout)
        return receipt is not None and receipt.rehearsal

    def take_name(self) -> None:
        """Create a foreign folder at the library's name, if the name is free."""
        if not self.library.exists():
            self.library.mkdir()
            (self.library / "not ours").touch()
            self.expected = self.library.stat().st_ino
            self.foreign.add(self.expected)

    def free_name(self) -> None:
        """Remove the foreign folder."""
        if (self.library / "not ours").exists():
            self.foreign.discard(self.library.stat().st_ino)
            shutil.rmtree(self.library)
            self.expected = None

    def inode(self) -> int | None:
        """Return the inode of what has the library's name; None if nothing has."""
        return self.library.lstat().st_ino if os.path.lexists(self.library) else None

    def folders(self) -> set[int]:
        """Return the inodes of what has the library's name, or was set aside."""
        return {each.lstat().st_ino for each in self.library.parent.glob("Library*")}


@dataclass(frozen=True)
class Request:
    """The options of one pull."""

    mode: Mode = Mode.MOVE
    on_existing: OnExisting = OnExisting.FAIL
    retry_failed: bool = False
    owner: str | None = None


MOVE = Request()
"""The defaults of ``pull``."""
