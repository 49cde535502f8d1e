"""Collect what a manifest requires of a volume: examples for the probe, in bounded memory."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from initpuller.volume.fidelity import xattr_cost
from shared.tree.manifest import Kind

if TYPE_CHECKING:
    from shared.tree.manifest import Entry

_MOST = 256
"""Owners, and sets of extended attributes, to try; a library has a handful."""
_ODD = re.compile(rb'[\x00-\x1f\x7f<>:"|?*\\]|[ .]\Z')
"""Characters in a name that some filesystems refuse or change (SMB, FAT, NTFS)."""


@dataclass
class Needs:
    """Examples of everything in a manifest that a volume may be unable to hold."""

    file_modes: set[int] = field(default_factory=set)
    folder_modes: set[int] = field(default_factory=set)
    owners: set[tuple[int, int]] = field(default_factory=set)
    earliest_ns: int = 0
    latest_ns: int = 0
    xattrs: dict[int, dict[str, int]] = field(default_factory=dict)
    """Names and lengths of an entry's extended attributes, by their cost in bytes."""
    link: bytes = b""
    """The longest target of a symlink; empty if there is none."""
    has_hard_links: bool = False
    has_holes: bool = False
    largest: int = 0
    """Bytes of the largest file."""
    name: bytes = b""
    """The longest name."""
    path: bytes = b""
    """The longest path."""
    odd_names: dict[str, bytes] = field(default_factory=dict)
    """An example for each property of names that some filesystems refuse."""

    @classmethod
    def generic(cls) -> Self:
        """Return what a library of Plex may need, for a preflight, which has no manifest."""
        return cls(
            file_modes={0o600, 0o640, 0o644, 0o755},
            folder_modes={0o700, 0o755, 0o2775},
            earliest_ns=0,
            latest_ns=(2**31 - 1) * 10**9,
            link=b"../" * 80,
            has_hard_links=True,
            has_holes=True,
            name=b"n" * 255,
            path=b"/".join([b"p" * 100] * 5),
            odd_names={"a colon": b"a:b", "an accent": "\u00e9".encode(), "a blank": b"a "},
            xattrs={xattr_cost({"user.DOSATTRIB": bytes(64)}): {"user.DOSATTRIB": 64}},
        )

    def take(self, entry: Entry) -> None:
        """Add the needs of one entry."""
        kind, path, time = entry.kind, entry.path, entry.mtime_ns
        if kind is Kind.FILE:
            self.file_modes.add(entry.mode)
            self.largest = max(self.largest, entry.size)
            self.has_holes = self.has_holes or entry.data is not None
        elif kind is Kind.DIRECTORY:
            self.folder_modes.add(entry.mode)
        elif kind is Kind.HARDLINK:
            self.has_hard_links = True
        elif len(entry.link) > len(self.link):
            self.link = entry.link
        if not self.path:
            self.earliest_ns = self.latest_ns = time
        self.earliest_ns = min(self.earliest_ns, time)
        self.latest_ns = max(self.latest_ns, time)
        if len(self.owners) < _MOST:
            self.owners.add((entry.uid, entry.gid))
        if len(path) > len(self.path):
            self.path = path
        self._name(path.rpartition(b"/")[2])
        if entry.xattrs:
            self._xattrs(entry.xattrs)

    def _name(self, name: bytes) -> None:
        if len(name) > len(self.name):
            self.name = name
        if name.isascii():
            found = _ODD.search(name)
            if found is not None:
                self.odd_names.setdefault(f"the character {found[0]!r}", name)
            return
        try:
            text = name.decode()
        except UnicodeDecodeError:
            self.odd_names.setdefault("bytes that are not UTF-8", name)
            return
        self.odd_names.setdefault("characters outside of ASCII", name)
        if not unicodedata.is_normalized("NFC", text):
            self.odd_names.setdefault("characters that are not in form NFC", name)
        if not unicodedata.is_normalized("NFD", text):
            self.odd_names.setdefault("characters that are not in form NFD", name)

    def _xattrs(self, xattrs: dict[str, bytes]) -> None:
        cost = xattr_cost(xattrs)
        if cost in self.xattrs:
            return
        if len(self.xattrs) >= _MOST:
            least = min(self.xattrs)
            if cost < least:
                return
            del self.xattrs[least]
        self.xattrs[cost] = {name: len(value) for name, value in xattrs.items()}
