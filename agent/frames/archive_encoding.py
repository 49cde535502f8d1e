"""The archive of one snapshot in one encoding: its frames, its entity-tag and its last failure."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from agent.frames.builder import build_frame
from agent.frames.encoder import encode, fingerprint
from agent.frames.index import FrameIndex
from agent.source.file_reader import changed
from shared.digest import sha256
from shared.errors import PlexodusError

if TYPE_CHECKING:
    from agent.source.snapshot_files import SnapshotFiles
    from shared.digest import Buffer
    from shared.frames.codec import Encoding

_log = structlog.get_logger("agent")
_TRIES = 2
"""Number of attempts. Other bytes from an encoder do not prove that the source changed."""


@dataclass(frozen=True, slots=True)
class EncodedFrame:
    """One frame in the form in which it is sent."""

    data: Buffer
    digest: bytes
    """Raw SHA-256 of :attr:`data`."""


class Representation:
    """The archive of a snapshot in one encoding. Methods block: call them from a worker thread."""

    def __init__(self, snapshot: SnapshotFiles, encoding: Encoding) -> None:
        self.snapshot = snapshot
        self.encoding = encoding
        path = os.path.join(snapshot.folder, f"index.{encoding.value}")
        self.index = FrameIndex(path, snapshot.manifest.plan, encoding)
        name = f"{snapshot.about.id} {encoding.value} ".encode() + fingerprint(encoding)
        self.tag = sha256(name).hex()
        """The opaque part of the strong entity-tag. Equal tags mean equal bytes."""
        self.failed: int | None = None
        """Number of the frame that could not be built at its last attempt."""
        self.learning = asyncio.Lock()
        """Held while frames are encoded for the index, so that only one such pass runs."""

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.snapshot.manifest.plan)

    def make(self, number: int) -> EncodedFrame:
        """Build frame ``number`` from the source files and encode it.

        Raises:
            IndexError: If there is no such frame.
            SourceChanged: If the source changed, or the frame's bytes differ from an earlier build.
            SourceUnreadable, StorageError: See :mod:`agent.source.file_reader`.
            OSError: If the index cannot be written.
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
        """Encode the tar bytes of frame ``number`` and record it in the index; see :meth:`make`."""
        for _ in range(_TRIES):
            data = encode(tar, self.encoding)
            frame = EncodedFrame(data, sha256(data))
            if self.index.put(number, memoryview(data).nbytes, frame.digest):
                return frame
            _log.warning(
                "frame differs from an earlier build",
                snapshot=self.snapshot.about.id,
                frame=number,
                encoding=self.encoding.value,
                tar=sha256(tar).hex(),
                encoded=frame.digest.hex(),
            )
        first = self.snapshot.manifest.plan[number].first
        raise changed(self.snapshot.manifest.entries(first, 1)[0])
