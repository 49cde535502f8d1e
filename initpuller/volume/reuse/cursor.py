"""A position in a manifest, for what reads two of them side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from shared.digest import SIZE
from shared.frames.file_digests import split
from shared.native import native
from shared.tree.manifest import parse_line

if TYPE_CHECKING:
    from shared.frames.file_digests import FileDigests
    from shared.frames.manifest_file import ManifestFile
    from shared.tree.manifest import Entry


@dataclass(frozen=True, slots=True)
class Kept:
    """A run of entries of a delta that are kept, and that the older snapshot has in a row, too."""

    older: int
    """Number of the first one in the older snapshot."""
    newer: int
    count: int
    last: Entry
    folders: list[tuple[int, Entry]]
    """The folders among them that the last one is in, or is, with their numbers in the delta."""


class Cursor:
    """The entry of ``manifest`` at which a comparison is; its number is :attr:`number`.

    If there are ``digests``, they are those of its entries.
    """

    def __init__(self, manifest: ManifestFile, digests: FileDigests | None = None) -> None:
        self._pieces, self._digests = manifest.pieces(), digests
        self._lines, self._block = b"", b""
        self._start = self._first = self.number = 0
        self._after = 0
        self.entry: Entry | None = None
        """The entry, None at the end."""
        self._read()

    @property
    def digest(self) -> bytes | None:
        """The digest of the entry, if it is known."""
        return next(split(self._block[self._offset : self._offset + SIZE]), None)

    def advance(self) -> None:
        """Go to the next entry."""
        self._skip(1, self._after - self._start)

    def skip_kept(self, older: Cursor) -> Kept | None:
        """Go to the next entry that the accelerator cannot say is kept and also at ``older``.

        Return the run that was skipped, in both manifests, or None.
        """
        lines, known = self._lines[self._start :], older._block[older._offset :]
        found = None
        if native is not None:
            found = native.kept(older._lines[older._start :], lines, known)
        if found is None or not found[0]:
            return None
        count, older_size, size, folders = found
        last = lines[lines.rfind(b"\n", 0, size - 1) + 1 : size]
        inside = [(self.number + n, parse_line(lines[start:end])) for n, start, end in folders]
        run = Kept(older.number, self.number, count, parse_line(last), inside)
        self._skip(count, size)
        older._skip(count, older_size)
        return run

    @property
    def _offset(self) -> int:
        return (self.number - self._first) * SIZE

    def _skip(self, count: int, size: int) -> None:
        self.number += count
        self._start += size
        self._read()

    def _read(self) -> None:
        if self._start == len(self._lines):
            numbers, lines = next(self._pieces, (range(0), b""))
            # JSON may have a carriage return between values, which ends a line as a newline does.
            self._lines = b"\n".join((*lines.splitlines(), b"")) if b"\r" in lines else lines
            self._block = self._digests.block(numbers) if self._digests is not None else b""
            self._start, self._first = 0, self.number
        self._after = self._lines.find(b"\n", self._start) + 1
        line = self._lines[self._start : self._after - 1]
        self.entry = parse_line(line) if self._after else None
