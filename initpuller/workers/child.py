"""A process of its own that fetches, verifies and unpacks frames, one after the other.

Two such processes measured twice as fast as two threads: creating a file is a dozen short system
calls, and after each of them a thread of the same interpreter waits for its turn.

:mod:`initpuller.workers.pool` is the other end.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING

from initpuller.agent_client.frames import Answer, FrameConnection, Held
from initpuller.volume.staging.blocks import Unpacked, keep_block, patch_block, read_block
from initpuller.volume.staging.held_frames import read_packed
from initpuller.volume.staging.unpack import unpack_frame
from shared.digest import sha256, sha256_of_all
from shared.errors import PlexodusError, ProtocolViolation, storage_error
from shared.frames.codec import Encoding, decode, max_encoded
from shared.frames.file_digests import FileDigests
from shared.frames.manifest_file import read_entries
from shared.frames.pieces import format_pieces, places
from shared.frames.plan import block_length, is_large
from shared.program.mallopt import keep_freed_memory
from shared.wire import protocol

if TYPE_CHECKING:
    from initpuller.volume.fidelity import AttributePolicy
    from shared.digest import Buffer
    from shared.frames.manifest_file import Location
    from shared.frames.plan import Frame
    from shared.tree.manifest import Entry
    from shared.wire.pairing import Pairing

LENGTH_BYTES = 4
"""Of the big-endian number before each pickled request and answer."""
_ENCODING = Encoding.ZSTD
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Assignment:
    """What all frames of one snapshot have in common."""

    pairing: Pairing
    idle: float
    """Seconds without a byte after which the agent counts as stalled."""
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
    """One frame to bring."""

    frame: Frame
    entries: Location
    """Where in the manifest its entries are."""
    held: str | None
    """The digest of what an earlier snapshot left in its place, or was renamed to it; empty: it is
    to be read."""
    following: int | None
    """The frame that this worker will be asked for next, if nothing is held of it: its request goes
    out ahead."""


class FrameWorker:
    """Brings frames of one snapshot into one staging folder.

    Args:
        assignment: which, and where.

    Raises:
        StorageError: as the filesystem says.
    """

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        try:
            self._staging = os.open(assignment.staging, _FOLDER)
            self._digests = FileDigests(assignment.digests, assignment.entries)
        except OSError as error:
            raise storage_error(error, assignment.staging) from error
        self._last: tuple[Location | None, list[Entry]] = None, []
        self._connections = [FrameConnection(assignment.pairing, assignment.idle) for _ in range(2)]

    def bring(self, order: Order) -> Unpacked:
        """Fetch, verify and unpack a frame.

        Raises:
            PlexodusError: see :meth:`FrameConnection.answer`, :func:`unpack_frame` and
                :func:`shared.frames.codec.decode`.
        """
        frame = order.frame
        wanted = [self._route(frame.number)]
        if order.following is not None:
            wanted.append(self._route(order.following))
        entries = self._entries_at(order.entries)
        if order.held is not None and is_large(entries[0]):
            return self._renew(frame, entries, order.held, wanted)
        if order.held is not None:
            return self._renamed(frame, entries, order.held, wanted)
        answer = self._ask(wanted).answer(max_encoded(frame.size))
        return self._unpack(frame, entries, answer)

    def _entries_at(self, location: Location) -> list[Entry]:
        """Those in the manifest; of a large file, they are the same for frame after frame."""
        if self._last[0] != location:
            try:
                self._last = location, read_entries(self._assignment.manifest, location)
            except OSError as error:
                raise storage_error(error, self._assignment.manifest) from error
        return self._last[1]

    def _renew(self, frame: Frame, entries: list[Entry], held: str, wanted: list[str]) -> Unpacked:
        """Bring what of a block is not as an earlier snapshot left it."""
        old, most = b"", max_encoded(frame.size)
        if not held:
            old = read_block(self._staging, frame, entries[0])
            held = sha256_of_all([sha256(old)]).hex()
        answer = self._ask(wanted, Held(held)).answer(most)
        if answer.wants_pieces:
            old = old or read_block(self._staging, frame, entries[0])
            answer = self._ask(wanted, Held(held, format_pieces(old))).answer(most)
        if answer.encoded is None:
            return keep_block(self._staging, frame, entries[0], answer.tag)
        if answer.bitmap is None:
            return self._unpack(frame, entries, answer)
        where = places(answer.bitmap, block_length(frame, entries[0]))
        if where is None:
            raise ProtocolViolation("a bitmap of pieces that are not there", path=wanted[0])
        changed = decode(answer.encoded, sum(length for _, length in where))
        return patch_block(self._staging, frame, entries[0], old, where, changed, answer.tag)

    def _renamed(
        self, frame: Frame, entries: list[Entry], held: str, wanted: list[str]
    ) -> Unpacked:
        """Make a packed frame of files that the volume has, if the agent has them so, too."""
        tar = read_packed(self._staging, frame, entries, held)
        answer = self._ask(wanted, Held(held) if tar is not None else None).answer(
            max_encoded(frame.size)
        )
        if tar is None or answer.encoded is not None:
            return self._unpack(frame, entries, answer)
        return replace(self._written(frame, entries, tar, held), is_held=True)

    def _unpack(self, frame: Frame, entries: list[Entry], answer: Answer) -> Unpacked:
        if answer.encoded is None:
            raise ProtocolViolation("nothing, for a frame that was asked for whole")
        tar = decode(answer.encoded, frame.size)
        return self._written(frame, entries, tar, answer.tag)

    def _written(self, frame: Frame, entries: list[Entry], tar: Buffer, tag: str) -> Unpacked:
        policy = self._assignment.policy
        return unpack_frame(self._staging, frame, entries, tar, tag, policy, self._digests)

    def _ask(self, wanted: list[str], held: Held | None = None) -> FrameConnection:
        """Have all that is ``wanted`` under way; the connection that answers the first of it.

        Args:
            wanted: routes.
            held: what we have of the first.
        """
        free = [each for each in self._connections if each.asked not in wanted]
        asked = [each.asked for each in self._connections]
        for route in wanted:
            if route not in asked:
                free.pop().ask(route, held if route == wanted[0] else None)
        return next(each for each in self._connections if each.asked == wanted[0])

    def _route(self, number: int) -> str:
        return protocol.frame_path(self._assignment.snapshot, number, _ENCODING.value)


def work(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer requests until there are no more: an assignment by nothing."""
    keep_freed_memory()
    worker: FrameWorker | None = None
    while head := requests.read(LENGTH_BYTES):
        request = pickle.loads(requests.read(int.from_bytes(head, "big")))  # noqa: S301 - ours
        answer: Unpacked | PlexodusError | None = None
        try:
            if isinstance(request, Assignment):
                worker = FrameWorker(request)
            elif worker is None:
                raise ValueError("an order without an assignment")
            else:
                answer = worker.bring(request)
        except PlexodusError as error:
            answer = error
        answers.write(framed(answer))
        answers.flush()


def framed(message: object) -> bytes:
    """``message`` pickled, with its length before it."""
    body = pickle.dumps(message)
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


def end_with(parent: int) -> None:
    """Have the kernel kill this process as soon as ``parent``, which forked it, is gone."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
