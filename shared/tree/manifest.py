"""Entries and their lines: one JSON object a line, sorted, parents first (docs/protocol.md).

Names that are UTF-8 travel as ``path`` and ``link``; all others, base64, as ``path_b64`` and
``link_b64``. Inside, every name is bytes.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Annotated

import msgspec

from shared.errors import (
    EntriesOutOfOrder,
    IllegalLink,
    ManifestMalformed,
    ManifestTooLarge,
    ParentNotDirectory,
)
from shared.tree import member_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAX_LINE = 1024 * 1024
"""Bytes of one line; xattrs are what makes one long."""
MAX_ENTRIES = 50_000_000
"""Entries of one library: a hundred times the largest one heard of."""

MAX_TIME = 2**64 - 1
"""Nanoseconds from 1970, either way: ext4's times end in 2446."""

Size = Annotated[int, msgspec.Meta(ge=0, lt=2**62)]
Id = Annotated[int, msgspec.Meta(ge=0, lt=2**32 - 1)]


class Kind(Enum):
    """What an entry is. Everything else in a filesystem is not library content."""

    DIRECTORY = "dir"
    FILE = "file"
    SYMLINK = "symlink"
    HARDLINK = "hardlink"


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One path of the library as one scan saw it."""

    path: bytes
    """From the library's own name on, ``/`` between names."""
    kind: Kind
    mode: int
    """Permission bits with setuid, setgid and sticky: 0 to 0o7777."""
    uid: int
    gid: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    size: int = 0
    """Bytes of a file's content; 0 for all else."""
    data: int | None = None
    """Bytes of a sparse file that are not in holes; None: the file has no holes."""
    link: bytes = b""
    """A symlink's target; or the earlier path that a hard link is another name of."""
    xattrs: dict[str, bytes] = {}
    kept: bool = False
    """It is as in the snapshot that this one is a delta to: no frame has it."""

    def is_as_in(self, other: Entry) -> bool:
        """Whether two scans saw the same, whatever they are deltas to.

        Space that is allocated and not yet written counts as a hole until somebody reads it
        (lseek(2), SEEK_DATA), so :attr:`data` may differ where nothing changed.
        """
        return self.looks_like(other) and self.link == other.link and self.xattrs == other.xattrs

    def looks_like(self, other: Entry) -> bool:
        """Whether two scans saw the same from outside: neither looked into it.

        Whatever sets a target, content or xattr sets the ctime, too (inode(7)).
        """
        return (
            self.ctime_ns == other.ctime_ns
            and self.path == other.path
            and self.inode == other.inode
            and self.size == other.size
            and self.mtime_ns == other.mtime_ns
            and self.mode == other.mode
            and (self.uid, self.gid) == (other.uid, other.gid)
            and self.kind is other.kind
        )


class _Line(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """An entry as it is written on the wire and on disk."""

    kind: Kind
    mode: Annotated[int, msgspec.Meta(ge=0, le=0o7777)]
    uid: Id
    gid: Id
    mtime_ns: int
    ctime_ns: int
    inode: Annotated[int, msgspec.Meta(ge=0)]
    size: Size = 0
    data: Size | None = None
    path: str = ""
    path_b64: bytes = b""
    link: str = ""
    link_b64: bytes = b""
    xattrs: dict[str, bytes] = {}
    kept: bool = False


_LINKS = (Kind.SYMLINK, Kind.HARDLINK)
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(_Line)


def _spell(name: bytes) -> tuple[str, bytes]:
    try:
        return name.decode(), b""
    except UnicodeDecodeError:
        return "", name


def format_line(entry: Entry) -> bytes:
    """The line of ``entry``, with its newline."""
    path, path_b64 = _spell(entry.path)
    link, link_b64 = _spell(entry.link)
    line = _Line(
        kind=entry.kind,
        mode=entry.mode,
        uid=entry.uid,
        gid=entry.gid,
        mtime_ns=entry.mtime_ns,
        ctime_ns=entry.ctime_ns,
        inode=entry.inode,
        size=entry.size,
        data=entry.data,
        path=path,
        path_b64=path_b64,
        link=link,
        link_b64=link_b64,
        xattrs=entry.xattrs,
        kept=entry.kept,
    )
    return _encoder.encode(line) + b"\n"


def parse_line(text: bytes) -> Entry:
    """The entry in one line, names not yet checked: that is :func:`checked`'s.

    Raises:
        ManifestTooLarge: the line is longer than :data:`MAX_LINE`.
        ManifestMalformed: it is not an entry.
    """
    if len(text) > MAX_LINE:
        raise ManifestTooLarge(f"a manifest line of more than {MAX_LINE} bytes")
    try:
        line = _decoder.decode(text)
        path = line.path.encode() or line.path_b64
        link = line.link.encode() or line.link_b64
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise ManifestMalformed(f"a manifest line that is no entry ({error})") from error
    if abs(line.mtime_ns) > MAX_TIME:
        raise ManifestMalformed("a time that no filesystem holds", path=path)
    if line.kind is not Kind.FILE and (line.size or line.data is not None):
        raise ManifestMalformed("a size on something that is not a file", path=path)
    if line.data is not None and line.data > line.size:
        raise ManifestMalformed("a sparse file with more data than size", path=path)
    return Entry(
        path=path,
        kind=line.kind,
        mode=line.mode,
        uid=line.uid,
        gid=line.gid,
        mtime_ns=line.mtime_ns,
        ctime_ns=line.ctime_ns,
        inode=line.inode,
        size=line.size,
        data=line.data,
        link=link,
        xattrs=line.xattrs,
        kept=line.kept,
    )


def leads_out(link: Entry, top: bytes) -> bool:
    """Return whether a symlink's target, as it is spelled, is not below ``top``.

    Args:
        link: the symlink.
        top: the path of the library's own folder.
    """
    if link.link.startswith(b"/"):
        return True
    names = link.path.split(b"/")[:-1]
    above = top.count(b"/") + 1
    for name in link.link.split(b"/"):
        if name == b"..":
            if len(names) <= above:
                return True
            names.pop()
        elif name not in (b"", b"."):
            names.append(name)
    return False


def checked(entries: Iterable[Entry], root: bytes) -> Iterator[Entry]:
    """Pass on ``entries`` of a library called ``root``, refusing what a hostile agent could send.

    Raises:
        IllegalPath: see :func:`shared.tree.member_path.check_path`.
        IllegalLink: an impossible symlink target, or a hard link not to an earlier entry's path.
        EntriesOutOfOrder: not strictly sorted, so also any duplicate.
        ParentNotDirectory: below a file, a link, or nothing.
        ManifestMalformed: an xattr outside ``user.``, a root that is no directory.
        ManifestTooLarge: more than :data:`MAX_ENTRIES`.
    """
    previous = b""
    folders: list[bytes] = []
    for number, entry in enumerate(entries):
        if number >= MAX_ENTRIES:
            raise ManifestTooLarge(f"a manifest of more than {MAX_ENTRIES} entries")
        path = entry.path
        parent, _, name = path.rpartition(b"/")
        is_below = bool(folders) and parent == folders[-1]
        if is_below:  # what is above was checked with an entry of its own
            member_path.check_name(name, path, depth=len(folders) + 1)
        else:
            member_path.check_path(path, root)
        key = member_path.sort_key(path)
        if number and key <= previous:
            raise EntriesOutOfOrder("an entry twice or out of order", path=path)
        if not is_below:
            _climb(parent, folders, entry, is_root=number == 0)
        previous = key
        if entry.kind is Kind.DIRECTORY:
            folders.append(path)
        if entry.link or entry.kind in _LINKS:
            _check_link(entry, key, root)
        if entry.xattrs:
            _check_xattrs(entry)
        yield entry
    if not previous:
        raise ManifestMalformed("a manifest without a single entry")


def _climb(parent: bytes, folders: list[bytes], entry: Entry, *, is_root: bool) -> None:
    """Entries come depth first, so a parent is on the way up from the entry before."""
    if is_root:
        if entry.kind is not Kind.DIRECTORY or parent:
            raise ManifestMalformed("the first entry is not the library folder", path=entry.path)
        return
    while folders and folders[-1] != parent:
        folders.pop()
    if not folders:
        raise ParentNotDirectory("an entry below something that is no folder", path=entry.path)


def _check_link(entry: Entry, key: bytes, root: bytes) -> None:
    if entry.kind is Kind.SYMLINK:
        member_path.check_symlink_target(entry.link, entry.path)
    elif entry.kind is Kind.HARDLINK:
        member_path.check_path(entry.link, root)
        if member_path.sort_key(entry.link) >= key:
            raise IllegalLink("a hard link to a later entry", path=entry.path)
    elif entry.link:
        raise IllegalLink("a link target on something that is no link", path=entry.path)


def _check_xattrs(entry: Entry) -> None:
    for name in entry.xattrs:
        if not name.startswith("user.") or "\0" in name or len(name) > member_path.MAX_NAME:
            raise ManifestMalformed("an xattr outside the user namespace", path=entry.path)
