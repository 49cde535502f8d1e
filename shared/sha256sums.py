"""Lines as ``sha256sum`` writes and ``sha256sum -c`` reads them (GNU coreutils manual, md5sum).

A name with a backslash, newline or carriage return is escaped, and its line begins with a
backslash. Lines beginning with ``#`` are comments.
"""

from __future__ import annotations

import re

from shared.errors import ProtocolViolation

_LINE = re.compile(rb"(\\?)([0-9a-f]{64}) [ *](.+)", re.DOTALL)
_ESCAPES = {b"\\": b"\\\\", b"\n": b"\\n", b"\r": b"\\r"}
_PLAIN = {escape: plain for plain, escape in _ESCAPES.items()}


def format_sum(digest: bytes, path: bytes) -> bytes:
    """The line for ``path``, with its newline; ``digest`` raw."""
    escaped = re.sub(rb"[\\\n\r]", lambda found: _ESCAPES[found[0]], path)
    mark = b"\\" if escaped != path else b""
    return b"%s%s  %s\n" % (mark, digest.hex().encode(), escaped)


def parse_sum(line: bytes) -> tuple[bytes, bytes] | None:
    """Raw digest and path of a line without its newline; None for a comment.

    Raises:
        ProtocolViolation: it is neither.
    """
    if line.startswith(b"#"):
        return None
    found = _LINE.fullmatch(line)
    if found is None:
        raise ProtocolViolation("a line of SHA256SUMS that cannot be read", path=line[:200])
    path = found[3]
    if found[1]:
        path = re.sub(rb"\\[\\nr]", lambda escape: _PLAIN[escape[0]], path)
    return bytes.fromhex(found[2].decode()), path
