"""Lines in the format of ``sha256sum`` and ``sha256sum -c`` (GNU coreutils manual, md5sum).

A name with a backslash, newline or carriage return is escaped, and its line begins with a
backslash. Lines that begin with ``#`` are comments.
"""

from __future__ import annotations

import re
from binascii import hexlify
from typing import TYPE_CHECKING

from shared.errors import ProtocolViolation
from shared.frames.file_digests import split
from shared.native import native
from shared.tree.manifest import Kind, parse_line
from shared.tree.member_path import MAX_PATH

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

_BESIDE_PATH = 68
MAX_LINE = 2 * MAX_PATH + _BESIDE_PATH
"""Bytes of the longest possible line, with every byte of its path escaped."""
_LINE = re.compile(rb"(\\?)([0-9a-f]{64}) [ *](.+)", re.DOTALL)
_ESCAPES = {b"\\": b"\\\\", b"\n": b"\\n", b"\r": b"\\r"}
_SPECIAL = re.compile(rb"[\\\n\r]")
_PLAIN = {escape: plain for plain, escape in _ESCAPES.items()}


def format_sum(digest: bytes, path: bytes) -> bytes:
    """Return the line for ``path`` and the raw ``digest``, with its newline."""
    escaped = _SPECIAL.sub(lambda found: _ESCAPES[found[0]], path)
    return b"%b%b  %b\n" % (b"\\" if escaped != path else b"", hexlify(digest), escaped)


def format_sums(lines: bytes, digests: bytes) -> bytes:
    """Return the lines for all files that have a digest, of a piece of a manifest.

    Args:
        lines: the piece.
        digests: of its entries, as ``FileDigests.block`` returns them.
    """
    if (sums := usual_sums(lines, digests)) is not None:
        return sums
    entries = map(parse_line, lines.splitlines())
    return b"".join(
        format_sum(digest, entry.path)
        for entry, digest in zip(entries, split(digests), strict=True)
        if entry.kind is Kind.FILE and digest is not None
    )


def usual_sums(lines: bytes, digests: bytes) -> bytes | None:
    """Return the same as :func:`format_sums` if the accelerator can, and each file has a digest."""
    sums: bytes | None = None if native is None else native.sums(lines, digests)
    return sums


def max_bytes(files: int, path_bytes: int) -> int:
    """Return the most bytes of the sums of ``files`` files whose paths have ``path_bytes`` in all.

    That includes one line, so that an extra one is detected.
    """
    return min(files * MAX_LINE, files * _BESIDE_PATH + 2 * path_bytes + MAX_LINE)


def read_sums(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """Yield the raw digest and the path of each line, or raise ProtocolViolation."""
    while line := read_line(file):
        if (found := parse_sum(line.removesuffix(b"\n"))) is not None:
            yield found


def read_line(file: BinaryIO) -> bytes:
    """Return the next line with its newline; raise ProtocolViolation if it is too long."""
    line = file.readline(MAX_LINE + 1)
    if len(line) > MAX_LINE:
        raise ProtocolViolation(f"a line of SHA256SUMS has more than {MAX_LINE} bytes")
    return line


def parse_sum(line: bytes) -> tuple[bytes, bytes] | None:
    """Return the raw digest and the path of a line without its newline; None for a comment.

    Raise ProtocolViolation for anything else.
    """
    if line.startswith(b"#"):
        return None
    found = _LINE.fullmatch(line)
    if found is None:
        raise ProtocolViolation("a line of SHA256SUMS cannot be parsed", path=line[:200])
    path = found[3]
    if found[1]:
        path = re.sub(rb"\\[\\nr]", lambda escape: _PLAIN[escape[0]], path)
    return bytes.fromhex(found[2].decode()), path
