"""The digests of frames, as far as they are known, by the numbers of the frames."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

from shared.digest import SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator

_UNKNOWN = bytes(SIZE)


class FrameTags:
    """The tags of so many ``frames``: a byte each in memory, and 32 bytes for each frame with one.

    A tag is a hexadecimal digest. It is empty if the digest is still to be computed.
    """

    def __init__(self, frames: int) -> None:
        self._has = bytearray(frames)
        # The kernel gives memory only to pages that are written: a short manifest may declare
        # millions of frames. A dictionary of strings took 230 bytes for each frame with a tag.
        self._digests = mmap.mmap(-1, max(1, frames * SIZE), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)

    def __iter__(self) -> Iterator[int]:
        """Yield the numbers of the frames that have a tag, in order."""
        number = self._has.find(1)
        while number >= 0:
            yield number
            number = self._has.find(1, number + 1)

    def get(self, frame: int) -> str | None:
        """Return the tag of a frame, None if it has none."""
        if not self._has[frame]:
            return None
        digest = self._digests[frame * SIZE : (frame + 1) * SIZE]
        return "" if digest == _UNKNOWN else digest.hex()

    def put(self, frame: int, tag: str) -> None:
        """Set the tag of a frame."""
        self._digests[frame * SIZE : (frame + 1) * SIZE] = bytes.fromhex(tag) or _UNKNOWN
        self._has[frame] = 1

    def drop(self, frame: int) -> None:
        """Forget the tag of a frame, if it has one."""
        self._has[frame] = 0
