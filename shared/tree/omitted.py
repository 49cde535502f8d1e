"""The list of what a scan leaves out: one JSON object a line, in the order of a manifest.

Nothing is ever written at these paths. They are checked because people read them in the receipt.
The scan writes the file as it goes (:mod:`shared.tree.line_file`), and readers hold one piece.
"""

from __future__ import annotations

import hashlib
from enum import Enum
from typing import TYPE_CHECKING

import msgspec

from shared.errors import (
    EntriesOutOfOrder,
    IllegalPath,
    OmittedListMalformed,
    OmittedListTooLarge,
    OmittedListWrong,
    printable,
)
from shared.tree.line_file import LineFormat, LineWriter, read_pieces
from shared.tree.manifest import MAX_ENTRIES, Size, spell
from shared.tree.member_path import MAX_PATH, NO_NAMES, sort_key
from shared.wire.protocol import OmittedList

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_LINE = 128 * 1024
"""Bytes of one line: JSON may take six for one of the path."""
_MAX_PATH = MAX_PATH + 1024
"""Bytes of a path. It may be longer than an entry's: that can be why it is excluded."""
_FORM = LineFormat("list of omitted entries", OmittedListMalformed, OmittedListTooLarge)


class Reason(Enum):
    """Why an entry is omitted."""

    EXCLUDED = "excluded"
    FIFO = "fifo"
    SOCKET = "socket"
    CHARACTER_DEVICE = "character-device"
    BLOCK_DEVICE = "block-device"
    XATTR = "xattr"
    """The entry moves, but not this extended attribute of it: nothing can print its name."""


class Omitted(msgspec.Struct, frozen=True, gc=False):
    """One path that a scan left out; of a folder, only the folder itself."""

    path: bytes
    """From the library's own name on, ``/`` between names."""
    reason: Reason
    size: int = 0
    """Bytes of what was excluded, with all that is below it."""
    xattr: bytes = b""
    """The name of the extended attribute, if only that is left out."""

    @property
    def key(self) -> tuple[bytes, bytes]:
        """The record's place in the order, which no other record has."""
        return sort_key(self.path), self.xattr

    def __str__(self) -> str:
        """Return the record for users: ``path (123 bytes)``, ``path (FIFO)``."""
        if self.reason is Reason.EXCLUDED:
            about = f"{self.size} bytes"
        elif self.reason is Reason.XATTR:
            about = f"xattr {printable(self.xattr)}"
        else:
            about = self.reason.value.replace("-", " ").replace("fifo", "FIFO")
        return f"{printable(self.path)} ({about})"


class _Line(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """A record as it is written on the wire and on disk."""

    reason: Reason
    size: Size = 0
    path: str = ""
    path_b64: bytes = b""
    xattr: str = ""
    xattr_b64: bytes = b""


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(_Line)


def format_omitted(record: Omitted) -> bytes:
    """Return the line of ``record``, with its newline."""
    path, path_b64 = spell(record.path)
    xattr, xattr_b64 = spell(record.xattr)
    return (
        _encoder.encode(_Line(record.reason, record.size, path, path_b64, xattr, xattr_b64)) + b"\n"
    )


def parse_omitted(text: bytes) -> Omitted:
    """Parse one line, or raise OmittedListTooLarge or OmittedListMalformed.

    The record's path is not checked yet; see :func:`check_omitted`.
    """
    if len(text) > MAX_LINE:
        raise OmittedListTooLarge(f"a record of an omitted entry has over {MAX_LINE} bytes")
    try:
        line = _decoder.decode(text)
        path = line.path.encode() or line.path_b64
        xattr = line.xattr.encode() or line.xattr_b64
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise OmittedListMalformed(
            f"a record of an omitted entry is malformed ({error})"
        ) from error
    if bool(xattr) is not (line.reason is Reason.XATTR):
        raise OmittedListMalformed("a record of an omitted entry contradicts itself", path=path)
    return Omitted(path, line.reason, line.size, xattr)


class OmittedWriter(LineWriter):
    """Writes a new list in the file ``path``."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._path = path
        self._counts = [0, 0]

    def add(self, record: Omitted) -> None:
        """Append ``record``, which comes after all others."""
        self._counts[record.reason is not Reason.EXCLUDED] += 1
        self.add_lines(format_omitted(record))

    def finish(self) -> OmittedList:
        """Make the file durable, and return what is announced of it."""
        excluded, skipped = self._counts
        return OmittedList(excluded, skipped, self.sync(), _digest(self._path))


def read_omitted(path: str) -> Iterator[Omitted]:
    """Yield the records in ``path``, or raise OmittedListMalformed or OmittedListTooLarge."""
    for offset, text in read_pieces(path, _FORM):
        is_empty_list = not text and offset == 0
        if not is_empty_list and not text.endswith(b"\n"):
            raise OmittedListMalformed(
                "a piece of the list of omitted entries ends within a line", path=path
            )
        yield from map(parse_omitted, text.splitlines())


def check_omitted(path: str, announced: OmittedList, root: bytes) -> Iterator[Omitted]:
    """Yield the records of the library ``root`` in ``path``, and refuse what an agent could forge.

    The last step compares the file's digest and the counts with those that were ``announced``.

    Raises:
        OmittedListMalformed: The file is not such a list.
        OmittedListTooLarge: It, a line or the number of records exceeds a limit.
        IllegalPath: A path is too long, or not plainly below ``root``.
        EntriesOutOfOrder: The records are not strictly sorted, which includes duplicates.
        OmittedListWrong: The list is not the announced one.
    """
    most, counts, previous = announced.excluded + announced.skipped, [0, 0], (b"", b"")
    for number, record in enumerate(read_omitted(path)):
        if number >= MAX_ENTRIES:
            raise OmittedListTooLarge(f"more than {MAX_ENTRIES} omitted entries")
        _check_path(record.path, root)
        if record.key <= previous:
            raise EntriesOutOfOrder(
                "an omitted entry is listed twice or out of order", path=record.path
            )
        previous = record.key
        if number >= most:
            raise OmittedListWrong(
                f"the agent lists more than the {most} omitted entries announced"
            )
        counts[record.reason is not Reason.EXCLUDED] += 1
        yield record
    check_omitted_digest(path, announced)
    if counts != [announced.excluded, announced.skipped]:
        raise OmittedListWrong(
            f"the agent lists (excluded, skipped) {tuple(counts)} entries; it announced"
            f" {(announced.excluded, announced.skipped)}"
        )


def check_omitted_digest(path: str, announced: OmittedList) -> None:
    """Raise OmittedListWrong if the file ``path`` is not the ``announced`` list."""
    if _digest(path) != announced.sha256:
        raise OmittedListWrong("the list of omitted entries is not the announced one", path=path)


def _digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_path(path: bytes, root: bytes) -> None:
    names = path.split(b"/")
    if len(path) > _MAX_PATH:
        raise IllegalPath(
            f"the path of an omitted entry has over {_MAX_PATH} bytes", path=path[:200]
        )
    if names[0] != root or b"\0" in path or not NO_NAMES.isdisjoint(names):
        raise IllegalPath("the path of an omitted entry leads out of the library", path=path)
