"""Tar headers: plain ustar, with pax records only for values that ustar cannot represent.

Formats: POSIX.1-2017 ``pax``, sections "ustar Interchange Format" and "pax Interchange Format".
Headers hold times in seconds; nanoseconds are in the manifest.
"""

from __future__ import annotations

import zlib

from shared.tree.manifest import Entry, Kind, spell

BLOCK = 512
END_OF_ARCHIVE = bytes(2 * BLOCK)

_TYPES = {Kind.FILE: b"0", Kind.HARDLINK: b"1", Kind.SYMLINK: b"2", Kind.DIRECTORY: b"5"}
_NAME, _PREFIX, _LINK = 100, 155, 100
_SMALL_NUMBER = 8**7
_LARGE_NUMBER = 8**11
_NANOSECONDS = 10**9
_MAGIC_TO_DEVICE = b"ustar\x0000" + bytes(64) + b"0000000\x000000000\x00"
_AFTER_DEVICE = _PREFIX + 12
_HALF = 178
_SPACES = 8 * ord(" ")


def padded(size: int) -> int:
    """Return ``size`` rounded up to whole tar blocks, in bytes."""
    return (size + BLOCK - 1) // BLOCK * BLOCK


def header(entry: Entry) -> bytes:
    """Return all header blocks of ``entry``: its ustar block, after a pax header if needed."""
    name = _tar_name(entry)
    split = _split(name)
    seconds = entry.mtime_ns // _NANOSECONDS
    numbers = (
        entry.mode,
        entry.uid if entry.uid < _SMALL_NUMBER else 0,
        entry.gid if entry.gid < _SMALL_NUMBER else 0,
        entry.size if entry.size < _LARGE_NUMBER else 0,
        seconds if 0 <= seconds < _LARGE_NUMBER else 0,
    )
    fields = split or (name[:_NAME], b"")
    block = _ustar(fields, numbers, _TYPES[entry.kind], entry.link[:_LINK])
    return block if _is_plain(entry, split) else _pax_header(entry, name) + block


def header_size(entry: Entry) -> int:
    """Return ``len(header(entry))``, without building the header if it is a single block."""
    path = entry.path
    if len(path) < _NAME and path.isascii():
        split: tuple[bytes, bytes] | None = (path, b"")
    else:
        split = _split(_tar_name(entry))
    return BLOCK if _is_plain(entry, split) else len(header(entry))


def _is_plain(entry: Entry, split: tuple[bytes, bytes] | None) -> bool:
    """Return whether ustar can represent ``entry``; ``split`` is the result of :func:`_split`."""
    return (
        split is not None
        and not entry.xattrs
        and (not entry.link or (len(entry.link) <= _LINK and entry.link.isascii()))
        and entry.size < _LARGE_NUMBER
        and 0 <= entry.mtime_ns < _LARGE_NUMBER * _NANOSECONDS
        and entry.uid < _SMALL_NUMBER
        and entry.gid < _SMALL_NUMBER
    )


def _tar_name(entry: Entry) -> bytes:
    return entry.path + b"/" if entry.kind is Kind.DIRECTORY else entry.path


def _split(name: bytes) -> tuple[bytes, bytes] | None:
    """Return the ustar fields ``(name, prefix)``, or None if ustar cannot hold ``name``."""
    if not name.isascii():
        return None
    if len(name) <= _NAME:
        return name, b""
    cut = name.rfind(b"/", 0, min(_PREFIX + 1, len(name) - 1))  # not a folder's last slash
    rest = name[cut + 1 :]
    if cut <= 0 or not rest or len(rest) > _NAME:
        return None
    return rest, name[:cut]


def _pax_header(entry: Entry, name: bytes) -> bytes:
    pax: list[tuple[bytes, bytes]] = []
    if _split(name) is None:
        pax.append((b"path", name))
    if len(entry.link) > _LINK or not entry.link.isascii():
        pax.append((b"linkpath", entry.link))
    if any(spell(value)[1] for _, value in pax):  # not UTF-8
        pax.insert(0, (b"hdrcharset", b"BINARY"))
    for key, number, limit in (
        (b"size", entry.size, _LARGE_NUMBER),
        (b"mtime", entry.mtime_ns // _NANOSECONDS, _LARGE_NUMBER),
        (b"uid", entry.uid, _SMALL_NUMBER),
        (b"gid", entry.gid, _SMALL_NUMBER),
    ):
        if not 0 <= number < limit:
            pax.append((key, b"%d" % number))
    for xattr, value in sorted(entry.xattrs.items()):
        # Escaped as GNU tar does it, because "=" would end the keyword.
        keyword = xattr.replace("%", "%25").replace("=", "%3D")
        pax.append((f"SCHILY.xattr.{keyword}".encode(), value))
    body = b"".join(_pax_record(key, value) for key, value in pax)
    block = _ustar((b"././@PaxHeader", b""), (0o644, 0, 0, len(body), 0), b"x", b"")
    return block + body + bytes(padded(len(body)) - len(body))


def _pax_record(key: bytes, value: bytes) -> bytes:
    """Return ``length key=value newline``. The length includes its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    if len(str(length)) > len(str(rest)):
        length += 1
    return b"%d %s=%s\n" % (length, key, value)


def _ustar(
    name: tuple[bytes, bytes], numbers: tuple[int, int, int, int, int], kind: bytes, link: bytes
) -> bytes:
    """Return one header block; ``numbers`` are mode, uid, gid, size, and mtime in seconds."""
    before = b"%b%07o\0%07o\0%07o\0%011o\0%011o\0" % (name[0].ljust(_NAME, b"\0"), *numbers)
    after = b"%b%b%b%b" % (
        kind,
        link.ljust(_LINK, b"\0"),
        _MAGIC_TO_DEVICE,
        name[1].ljust(_AFTER_DEVICE, b"\0"),
    )
    checksum = _byte_sum(before) + _byte_sum(after[:_HALF]) + _byte_sum(after[_HALF:]) + _SPACES
    return b"%b%06o\0 %b" % (before, checksum, after)


def _byte_sum(data: bytes) -> int:
    """Return the sum of up to 256 bytes.

    It is the low half of Adler-32 (RFC 1950), which is 20 times as fast as sum().
    """
    return (zlib.adler32(data) & 0xFFFF) - 1
