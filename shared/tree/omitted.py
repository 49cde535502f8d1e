"""Records of what a scan leaves out: one JSON object a line, in the order of a manifest.

Nothing is ever written at these paths. They are checked because people read them in the receipt.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

import msgspec

from shared.errors import (
    EntriesOutOfOrder,
    IllegalPath,
    OmittedListMalformed,
    OmittedListTooLarge,
    printable,
)
from shared.tree.manifest import MAX_ENTRIES, Size, spell
from shared.tree.member_path import MAX_PATH, sort_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAX_LINE = 128 * 1024
"""Bytes of one line: JSON may take six for one of the path."""
_MAX_PATH = MAX_PATH + 1024
"""Bytes of a path. It may be longer than an entry's: that can be why it is excluded."""
_NO_NAMES = frozenset((b"", b".", b".."))


class Reason(Enum):
    """Why something is omitted."""

    EXCLUDED = "excluded"
    FIFO = "fifo"
    SOCKET = "socket"
    CHARACTER_DEVICE = "character-device"
    BLOCK_DEVICE = "block-device"
    XATTR = "xattr"
    """The entry moves, but not this extended attribute of it: nothing can print its name."""


_FOR_PEOPLE = {
    Reason.FIFO: "FIFO",
    Reason.SOCKET: "socket",
    Reason.CHARACTER_DEVICE: "character device",
    Reason.BLOCK_DEVICE: "block device",
}


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
        """Its place in the order: no two records have the same."""
        return sort_key(self.path), self.xattr

    def __str__(self) -> str:
        """Return it as people read it: ``path (123 bytes)``, ``path (FIFO)``."""
        if self.reason is Reason.EXCLUDED:
            about = f"{self.size} bytes"
        elif self.reason is Reason.XATTR:
            about = f"xattr {printable(self.xattr)}"
        else:
            about = _FOR_PEOPLE[self.reason]
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
    """Return the record in one line; :func:`checked_omitted` checks its path.

    Raises:
        OmittedListTooLarge: the line is longer than :data:`MAX_LINE`.
        OmittedListMalformed: it is not a record.
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


def checked_omitted(records: Iterable[Omitted], root: bytes) -> Iterator[Omitted]:
    """Yield ``records`` of a library called ``root``; refuse what a hostile agent could send.

    Raises:
        IllegalPath: a path is not plainly below ``root``, or is too long.
        EntriesOutOfOrder: the records are not strictly sorted, so also if one comes twice.
        OmittedListTooLarge: there are more than a library can have.
    """
    previous = b"", b""
    for number, record in enumerate(records):
        if number >= MAX_ENTRIES:
            raise OmittedListTooLarge(f"more than {MAX_ENTRIES} omitted entries")
        _check_path(record.path, root)
        if record.key <= previous:
            raise EntriesOutOfOrder(
                "an omitted entry is listed twice or out of order", path=record.path
            )
        previous = record.key
        yield record


def _check_path(path: bytes, root: bytes) -> None:
    names = path.split(b"/")
    if len(path) > _MAX_PATH:
        raise IllegalPath(
            f"the path of an omitted entry has over {_MAX_PATH} bytes", path=path[:200]
        )
    if names[0] != root or b"\0" in path or not _NO_NAMES.isdisjoint(names):
        raise IllegalPath("the path of an omitted entry leads out of the library", path=path)
