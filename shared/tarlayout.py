"""Tar headers: plain ustar, and pax records only for what ustar cannot say.

Formats: POSIX.1-2017 ``pax``, sections "ustar Interchange Format" and "pax Interchange Format".
Nanosecond times are not here; they travel in the manifest.
"""

from __future__ import annotations

from shared.manifest import Entry, Kind

BLOCK = 512
END_OF_ARCHIVE = bytes(2 * BLOCK)

_TYPES = {Kind.FILE: b"0", Kind.HARDLINK: b"1", Kind.SYMLINK: b"2", Kind.DIRECTORY: b"5"}
_NAME, _PREFIX, _LINK = 100, 155, 100
_SMALL_NUMBER = 8**7
_LARGE_NUMBER = 8**11
_NANOSECONDS = 10**9


def padded(size: int) -> int:
    """``size`` rounded up to whole tar blocks."""
    return (size + BLOCK - 1) // BLOCK * BLOCK


def header(entry: Entry) -> bytes:
    """All header blocks of ``entry``: its ustar block, and before it a pax header if needed."""
    name = _tar_name(entry)
    seconds = entry.mtime_ns // _NANOSECONDS
    pax: list[tuple[bytes, bytes]] = []
    split = _split(name)
    if split is None:
        pax.append((b"path", name))
        split = (name[:_NAME], b"")
    if len(entry.link) > _LINK or not entry.link.isascii():
        pax.append((b"linkpath", entry.link))
    if any(not _is_utf8(value) for _, value in pax):
        pax.insert(0, (b"hdrcharset", b"BINARY"))
    for key, value, limit in (
        (b"size", entry.size, _LARGE_NUMBER),
        (b"mtime", seconds, _LARGE_NUMBER),
        (b"uid", entry.uid, _SMALL_NUMBER),
        (b"gid", entry.gid, _SMALL_NUMBER),
    ):
        if not 0 <= value < limit:
            pax.append((key, b"%d" % value))
    pax.extend(
        (b"SCHILY.xattr." + _keyword(key), value) for key, value in sorted(entry.xattrs.items())
    )
    block = _ustar(
        split,
        mode=entry.mode,
        uid=entry.uid if entry.uid < _SMALL_NUMBER else 0,
        gid=entry.gid if entry.gid < _SMALL_NUMBER else 0,
        size=entry.size if entry.size < _LARGE_NUMBER else 0,
        mtime=seconds if 0 <= seconds < _LARGE_NUMBER else 0,
        kind=_TYPES[entry.kind],
        link=entry.link[:_LINK],
    )
    return _pax_header(pax) + block if pax else block


def header_size(entry: Entry) -> int:
    """``len(header(entry))``, without making it where one look tells."""
    if (
        len(entry.path) < _NAME
        and not entry.xattrs
        and entry.path.isascii()
        and len(entry.link) <= _LINK
        and entry.link.isascii()
        and entry.size < _LARGE_NUMBER
        and 0 <= entry.mtime_ns < _LARGE_NUMBER * _NANOSECONDS
        and entry.uid < _SMALL_NUMBER
        and entry.gid < _SMALL_NUMBER
    ):
        return BLOCK
    return len(header(entry))


def _tar_name(entry: Entry) -> bytes:
    return entry.path + b"/" if entry.kind is Kind.DIRECTORY else entry.path


def _keyword(name: str) -> bytes:
    """As GNU tar spells it: an ``=`` would end a pax record's keyword."""
    return name.replace("%", "%25").replace("=", "%3D").encode()


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _split(name: bytes) -> tuple[bytes, bytes] | None:
    """``(name, prefix)`` as ustar holds them, or None where it cannot."""
    if not name.isascii():
        return None
    if len(name) <= _NAME:
        return name, b""
    cut = name.rfind(b"/", 0, _PREFIX + 1)
    rest = name[cut + 1 :]
    if cut <= 0 or not rest or len(rest) > _NAME:
        return None
    return rest, name[:cut]


def _pax_header(records: list[tuple[bytes, bytes]]) -> bytes:
    body = b"".join(_pax_record(key, value) for key, value in records)
    block = _ustar(
        (b"././@PaxHeader", b""),
        mode=0o644,
        uid=0,
        gid=0,
        size=len(body),
        mtime=0,
        kind=b"x",
        link=b"",
    )
    return block + body + bytes(padded(len(body)) - len(body))


def _pax_record(key: bytes, value: bytes) -> bytes:
    """``length key=value newline``, where the length counts its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    if len(str(length)) > len(str(rest)):
        length += 1
    return b"%d %s=%s\n" % (length, key, value)


def _ustar(
    name: tuple[bytes, bytes],
    *,
    mode: int,
    uid: int,
    gid: int,
    size: int,
    mtime: int,
    kind: bytes,
    link: bytes,
) -> bytes:
    before = b"%s%07o\0%07o\0%07o\0%011o\0%011o\0" % (
        name[0].ljust(_NAME, b"\0"),
        mode,
        uid,
        gid,
        size,
        mtime,
    )
    after = b"%s%sustar\x0000%s%07o\0%07o\0%s" % (
        kind,
        link.ljust(_LINK, b"\0"),
        bytes(64),
        0,
        0,
        name[1].ljust(_PREFIX, b"\0"),
    )
    after = after.ljust(BLOCK - len(before) - 8, b"\0")
    checksum = sum(before) + sum(after) + 8 * ord(" ")
    return b"%s%06o\0 %s" % (before, checksum, after)
