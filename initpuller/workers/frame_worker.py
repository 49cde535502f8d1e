"""Fetches, verifies and unpacks frames, one after the other; its calls block.

:mod:`initpuller.workers.threads` calls it, each worker in a thread of its own.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from initpuller.agent_client.frames import Answer, FrameConnection, Held
from initpuller.volume.filesystem import FOLDER
from initpuller.volume.staging.blocks import (
    Block,
    Patch,
    Unpacked,
    keep_block,
    patch_block,
    read_block,
)
from initpuller.volume.staging.unpack import Destination, FetchedFrame, unpack_frame
from shared.digest import sha256_of_all
from shared.errors import Interrupted, ProtocolViolation, storage_errors
from shared.frames.codec import Encoding, decode, max_encoded
from shared.frames.file_digests import FileDigests
from shared.frames.manifest_file import read_lines
from shared.frames.pieces import format_pieces, piece_digests, places
from shared.frames.plan import is_large
from shared.tree.manifest import parse_line
from shared.wire import protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from initpuller.volume.fidelity import AttributePolicy
    from shared.frames.manifest_file import Location
    from shared.frames.plan import Frame
    from shared.wire.pairing import Pairing

T = TypeVar("T")


@dataclass(frozen=True)
class Assignment:
    """Everything that the frames of one snapshot have in common."""

    pairing: Pairing
    idle: float
    """Seconds without a byte after which the agent counts as stalled."""
    encoding: Encoding
    snapshot: str
    manifest: str
    """Path of its manifest."""
    staging: str
    digests: str
    """Path of the digests of unpacked files."""
    entries: int
    policy: AttributePolicy


@dataclass(frozen=True)
class Order:
    """One frame to fetch."""

    frame: Frame
    entries: Location
    """The place of its entries in the manifest."""
    held: str | None
    """The digest of the block that an earlier snapshot left in its place. Empty: the block must be
    read to know it. None: no block is there."""
    following: int | None
    """The frame that this worker gets next, if nothing is held of it: it is requested ahead."""


class FrameWorker:
    """Fetches the frames of one snapshot into one staging folder.

    One thread calls :meth:`bring`; any other may call the rest.
    """

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        with storage_errors(assignment.staging):
            self._staging = os.open(assignment.staging, FOLDER)
            digests = FileDigests(assignment.digests, assignment.entries)
        self._into = Destination(self._staging, assignment.policy, digests)
        self._last: tuple[list[int], list[bytes]] = [], []
        """The last requested pieces of the manifest, and their lines."""
        self._has_changed = False
        """Whether the last block that the volume had was another one: then the next one may be,
        and its pieces are sent at once."""
        self._connections = [FrameConnection(assignment.pairing, assignment.idle) for _ in range(2)]
        self._is_interrupted = False
        self._staging_in_use = threading.Lock()

    def bring(self, order: Order) -> Unpacked:
        """Fetch, verify and unpack a frame."""
        frame = order.frame
        wanted = [self._route(frame.number)]
        if order.following is not None:
            wanted.append(self._route(order.following))
        lines = self._lines_at(order.entries)
        if order.held is not None and is_large(first := parse_line(lines[0])):
            return self._renew(order, Block(frame, first), wanted)
        answer = self._ask(wanted).answer(max_encoded(frame.size))
        return self._unpack(frame, lines, answer)

    def interrupt(self) -> None:
        """Have :meth:`bring` fail soon. If it writes a frame now, it finishes that one."""
        self._is_interrupted = True
        for connection in self._connections:
            connection.interrupt()

    def wait_until_idle(self) -> None:
        """Return when nothing touches staging. After :meth:`interrupt`, nothing ever will."""
        with self._staging_in_use:
            pass

    def close(self) -> None:
        """Close connections and staging; only while :meth:`bring` does not run."""
        for connection in self._connections:
            connection.close()
        os.close(self._staging)

    def _in_staging(self, work: Callable[[], T]) -> T:
        """Return the result of ``work``, which reads or writes files in staging."""
        with self._staging_in_use:
            if self._is_interrupted:
                raise Interrupted("the pull has ended while a frame arrived")
            return work()

    def _lines_at(self, location: Location) -> list[bytes]:
        """Return lines of the manifest. One piece has the lines of some twenty frames."""
        offsets, path = location.offsets, self._assignment.manifest
        if self._last[0] != offsets:
            with storage_errors(path):
                self._last = offsets, read_lines(path, offsets)
        return location.of(self._last[1])

    def _renew(self, order: Order, block: Block, wanted: list[str]) -> Unpacked:
        """Fetch the pieces of a block in which it differs from what an earlier snapshot left."""
        held, most = order.held, max_encoded(block.frame.size)
        digests: list[bytes] = []

        def read() -> list[bytes]:
            return digests or piece_digests(read_block(self._staging, block))

        if not held or self._has_changed:
            digests = self._in_staging(read)
            held = sha256_of_all(digests).hex()
        pieces = format_pieces(digests) if self._has_changed else protocol.LATER
        answer = self._ask(wanted, Held(held, pieces)).answer(most)
        if answer.wants_pieces:
            digests = self._in_staging(read)
            held = sha256_of_all(digests).hex()
            answer = self._ask(wanted, Held(held, format_pieces(digests))).answer(most)
        self._has_changed = answer.encoded is not None
        if answer.encoded is None:
            return self._in_staging(lambda: keep_block(self._staging, block, answer.tag))
        if answer.bitmap is None:
            return self._unpack(block.frame, self._lines_at(order.entries), answer)
        where = places(answer.bitmap, block.length)
        if where is None:
            raise ProtocolViolation("a bitmap of pieces that are not there", path=wanted[0])
        length = sum(length for _, length in where)
        changed = decode(answer.encoded, length, self._assignment.encoding)
        patch = Patch(where, changed, answer.tag)
        return self._in_staging(lambda: patch_block(self._staging, block, digests, patch))

    def _unpack(self, frame: Frame, lines: list[bytes], answer: Answer) -> Unpacked:
        if answer.encoded is None:
            raise ProtocolViolation("the agent sent no content for an unconditional frame request")
        tar = decode(answer.encoded, frame.size, self._assignment.encoding)
        fetched = FetchedFrame(frame, lines, tar, answer.tag)
        return self._in_staging(lambda: unpack_frame(self._into, fetched))

    def _ask(self, wanted: list[str], held: Held | None = None) -> FrameConnection:
        """Send all requests that are not under way; return the connection of the first one.

        ``held`` is the block that the volume has in place of the first one.
        """
        free = [each for each in self._connections if each.asked not in wanted]
        asked = [each.asked for each in self._connections]
        for route in wanted:
            if route not in asked:
                free.pop().ask(route, held if route == wanted[0] else None)
        return next(each for each in self._connections if each.asked == wanted[0])

    def _route(self, number: int) -> str:
        assignment = self._assignment
        return protocol.frame_path(assignment.snapshot, number, assignment.encoding.value)
