"""One encoding of one snapshot's archive: its frames made and remembered, its name, its failure."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from agent.frames.builder import build_frame
from agent.frames.encoder import encode, fingerprint
from agent.source.file_reader import changed
from shared.digest import sha256
from shared.errors import PlexodusError

if TYPE_CHECKING:
    from agent.frames.index import FrameIndex
    from agent.source.snapshot_files import SnapshotFiles
    from shared.digest import Buffer
    from shared.frames.codec import Encoding

_log = structlog.get_logger("agent")
_TRIES = 2
"""No encoder promises the same bytes each time: once more, before the source is blamed."""


@dataclass(frozen=True, slots=True)
class EncodedFrame:
    """One frame as it goes over the wire."""

    data: Buffer
    digest: bytes
    """Raw SHA-256 of :attr:`data`."""


class Representation:
    """The archive in one encoding. Its methods block: call them from a worker thread.

    Args:
        snapshot: of what.
        encoding: in which.
        index: what is known of its frames.
    """

    def __init__(self, snapshot: SnapshotFiles, encoding: Encoding, index: FrameIndex) -> None:
        self.snapshot = snapshot
        self.encoding = encoding
        self.index = index
        name = f"{snapshot.about.id} {encoding.value} ".encode() + fingerprint(encoding)
        self.tag = sha256(name).hex()
        """The opaque part of its strong entity-tag: equal tags, equal bytes."""
        self.failed: int | None = None
        """The frame that could not be made when it was last tried."""
        self.learning = asyncio.Lock()
        """Held while frames are encoded for what is not known yet: one pass at a time."""

    def __len__(self) -> int:
        """How many frames."""
        return len(self.snapshot.manifest.plan)

    def make(self, number: int) -> EncodedFrame:
        """Frame ``number``, read from the source files.

        Raises:
            IndexError: there is no such frame.
            SourceChanged: also when the frame is not, byte for byte, what it was the first time.
            SourceUnreadable, StorageError: see :mod:`agent.source.file_reader`.
            OSError: the state folder does not take what is to be remembered.
        """
        try:
            frame = self.encode(number, build_frame(self.snapshot, number).tar)
        except (PlexodusError, OSError):
            self.failed = number
            raise
        if self.failed == number:
            self.failed = None
        return frame

    def encode(self, number: int, tar: Buffer) -> EncodedFrame:
        """Frame ``number`` of these tar bytes.

        Raises:
            SourceChanged, OSError: as for :meth:`make`.
        """
        for _ in range(_TRIES):
            data = encode(tar, self.encoding)
            frame = EncodedFrame(data, sha256(data))
            if self.index.put(number, memoryview(data).nbytes, frame.digest):
                return frame
            _log.warning(
                "a frame is not what it was the first time",
                snapshot=self.snapshot.about.id,
                frame=number,
                encoding=self.encoding.value,
                tar=sha256(tar).hex(),
                encoded=frame.digest.hex(),
            )
        first = self.snapshot.manifest.plan[number].first
        raise changed(self.snapshot.manifest.entries(first, 1)[0])
