"""The entries that the frames of a run leave to the end of staging."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from initpuller.volume.staging.blocks import Unpacked
    from shared.frames.manifest_file import ManifestFile
    from shared.tree.manifest import Entry


class Unfinished:
    """The late entries of all frames of a run, and the attributes that the volume did not keep.

    It takes one byte for each entry of ``manifest``, and reads the entries there again. To hold
    them took 1.9 KB for each frame of small files: 5 GB for 10 TB.
    """

    def __init__(self, manifest: ManifestFile) -> None:
        self._manifest = manifest
        self._is_late = bytearray(manifest.plan.entries)
        self._differences: dict[int, list[str]] = {}

    def add(self, frame: int, unpacked: Unpacked) -> None:
        """Add the result of a frame. A frame that was fetched again replaces its first result."""
        for number, _ in unpacked.late:
            self._is_late[number] = 1
        self._differences.pop(frame, None)
        if unpacked.differences:
            self._differences[frame] = unpacked.differences

    def entries(self) -> Iterator[tuple[int, Entry]]:
        """Yield the late entries with their numbers, in order."""
        number = self._is_late.find(1)
        while number >= 0:
            yield number, self._entry(number)
            number = self._is_late.find(1, number + 1)

    def backwards(self) -> Iterator[Entry]:
        """Yield the late entries, last first: children before their parents."""
        number = self._is_late.rfind(1)
        while number >= 0:
            yield self._entry(number)
            number = self._is_late.rfind(1, 0, number)

    def differences(self) -> list[str]:
        """Return a line for each attribute that the volume did not keep, in order."""
        return list(chain.from_iterable(lines for _, lines in sorted(self._differences.items())))

    def _entry(self, number: int) -> Entry:
        [entry] = self._manifest.entries(number, 1)
        return entry
