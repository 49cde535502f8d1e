"""Entries of a manifest and their lines: JSON objects, sorted, parents first (docs/protocol.md).

Names in UTF-8 are sent as ``path`` and ``link``. All other names are sent in base64, as
``path_b64`` and ``link_b64``. In memory, every name is bytes.
"""

from __future__ import annotations

from enum import Enum
from itertools import accumulate
from typing import TYPE_CHECKING, Annotated, NamedTuple

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
"""Longest line, in bytes. Only xattrs make lines long."""
MAX_ENTRIES = 50_000_000
"""Most entries of one library: a hundred times the largest known one."""

MAX_TIME = 2**64 - 1
"""Nanoseconds before or after 1970. The times of ext4 end in 2446."""

Size = Annotated[int, msgspec.Meta(ge=0, lt=2**62)]
Id = Annotated[int, msgspec.Meta(ge=0, lt=2**32 - 1)]


class Kind(Enum):
    """Type of an entry. Entries of any other type are not library content."""

    DIRECTORY = "dir"
    FILE = "file"
    SYMLINK = "symlink"
    HARDLINK = "hardlink"


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One path of the library with its attributes, as one scan found it."""

    path: bytes
    """Path that begins with the library's own name, with ``/`` between names."""
    kind: Kind
    mode: int
    """Permission bits including setuid, setgid and sticky: 0 to 0o7777."""
    uid: int
    gid: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    size: int = 0
    """Bytes of a file's content; 0 for every other type."""
    data: int | None = None
    """Bytes of a sparse file that are not in holes; None if the file has no holes."""
    link: bytes = b""
    """Target of a symlink, or the earlier path of the file that a hard link names."""
    xattrs: dict[str, bytes] = {}
    kept: bool = False
    """Whether the entry is unchanged since the delta's base, and therefore in no frame."""

    def is_as_in(self, other: Entry) -> bool:
        """Return whether two scans found the same entry, except for :attr:`kept`.

        Space that is allocated but not yet written counts as a hole until it is read (lseek(2),
        SEEK_DATA). So :attr:`data` may differ although nothing changed.
        """
        return self.looks_like(other) and self.link == other.link and self.xattrs == other.xattrs

    def looks_like(self, other: Entry) -> bool:
        """Return whether two scans found the same attributes, without a comparison of contents.

        Every change of a target, content or xattr also sets the ctime (inode(7)).
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
    """An entry in the form in which it is sent and stored."""

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


def spell(name: bytes) -> tuple[str, bytes]:
    """Return ``name`` as text and nothing, or nothing and ``name`` if it is not UTF-8."""
    try:
        return name.decode(), b""
    except UnicodeDecodeError:
        return "", name


def format_line(entry: Entry) -> bytes:
    """Return the line of ``entry``, with its newline."""
    path, path_b64 = spell(entry.path)
    link, link_b64 = spell(entry.link)
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
    """Parse one line, or raise ManifestTooLarge or ManifestMalformed.

    The entry's names are not checked yet; see :func:`checked`.
    """
    if len(text) > MAX_LINE:
        raise ManifestTooLarge(f"the manifest has a line of more than {MAX_LINE} bytes")
    try:
        line = _decoder.decode(text)
        path = line.path.encode() or line.path_b64
        link = line.link.encode() or line.link_b64
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise ManifestMalformed(f"a line of the manifest cannot be parsed ({error})") from error
    if abs(line.mtime_ns) > MAX_TIME:
        raise ManifestMalformed("an entry has a time that no filesystem can store", path=path)
    if line.kind is not Kind.FILE and (line.size or line.data is not None):
        raise ManifestMalformed("an entry has a size but is not a file", path=path)
    if line.data is not None and line.data > line.size:
        raise ManifestMalformed("a sparse file has more data than its size", path=path)
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
    """Return whether a symlink's target, taken literally, is outside the path ``top``."""
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


class Place(NamedTuple):
    """The end of a run of checked entries: all that the check of the next one has to know."""

    number: int = 0
    """Number of the next entry."""
    path: bytes = b""
    """Path of the last entry."""
    is_folder: bool = False
    """Whether that is a folder."""

    def folders(self) -> list[bytes]:
        """Return the paths of the folders that the next entry may be in, the deepest one last.

        The order is depth first, so they are the last entry and those above it.
        """
        names = self.path.split(b"/") if self.is_folder else self.path.split(b"/")[:-1]
        return list(accumulate(names, lambda above, name: above + b"/" + name))


START = Place()


def checked(entries: Iterable[Entry], root: bytes, place: Place = START) -> Iterator[Entry]:
    """Yield the ``entries`` of the library ``root``; refuse what a hostile agent could have forged.

    Args:
        entries: the entries that come after ``place``.
        root: the library's own name.
        place: the end of the entries that were checked already.

    Raises:
        IllegalPath: A path is illegal; see :func:`shared.tree.member_path.check_path`.
        IllegalLink: A symlink has an impossible target, or a hard link names no earlier path.
        EntriesOutOfOrder: The entries are not strictly sorted, which includes duplicates.
        ParentNotDirectory: An entry is below a file, below a link, or has no parent.
        ManifestMalformed: An xattr is outside ``user.``, or the root is not a directory.
        ManifestTooLarge: There are more than :data:`MAX_ENTRIES` entries.
    """
    previous, folders = member_path.sort_key(place.path), place.folders()
    for number, entry in enumerate(entries, place.number):
        if number >= MAX_ENTRIES:
            raise ManifestTooLarge(f"the manifest has more than {MAX_ENTRIES} entries")
        path = entry.path
        parent, _, name = path.rpartition(b"/")
        is_below = bool(folders) and parent == folders[-1]
        if is_below:  # the parent was checked as an entry of its own
            member_path.check_name(name, path, depth=len(folders) + 1)
        else:
            member_path.check_path(path, root)
        key = member_path.sort_key(path)
        if number and key <= previous:
            raise EntriesOutOfOrder("a manifest entry is a duplicate or out of order", path=path)
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
        raise ManifestMalformed("the manifest has no entries")


def _climb(parent: bytes, folders: list[bytes], entry: Entry, *, is_root: bool) -> None:
    """Drop folders from the end of ``folders`` until the last one is ``parent``.

    Entries are sorted depth first, so the parent is the previous entry or one of its ancestors.
    """
    if is_root:
        if entry.kind is not Kind.DIRECTORY or parent:
            raise ManifestMalformed("the first entry is not the library folder", path=entry.path)
        return
    while folders and folders[-1] != parent:
        folders.pop()
    if not folders:
        raise ParentNotDirectory("the parent of an entry is not a folder", path=entry.path)


def _check_link(entry: Entry, key: bytes, root: bytes) -> None:
    if entry.kind is Kind.SYMLINK:
        member_path.check_symlink_target(entry.link, entry.path)
    elif entry.kind is Kind.HARDLINK:
        member_path.check_path(entry.link, root)
        if member_path.sort_key(entry.link) >= key:
            raise IllegalLink("a hard link refers to a later entry", path=entry.path)
    elif entry.link:
        raise IllegalLink("an entry has a link target but is not a link", path=entry.path)


def _check_xattrs(entry: Entry) -> None:
    for name in entry.xattrs:
        if not name.startswith("user.") or "\0" in name or len(name) > member_path.MAX_NAME:
            raise ManifestMalformed("an xattr is outside the user namespace", path=entry.path)
