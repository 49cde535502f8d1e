"""Makes a library with every legal oddity of a filesystem."""

from __future__ import annotations

import contextlib
import os
import random
import stat
from typing import TYPE_CHECKING

from shared.frames.plan import FRAME

if TYPE_CHECKING:
    from pathlib import Path

SECOND = 10**9
FAR_TIMES = (
    -1,
    -5 * SECOND - 1,
    -(2**31) * SECOND,
    2**31 * SECOND + 1,
    2**32 * SECOND + 999_999_999,
    2**33 * SECOND + 123_456_789,
    14_000_000_000 * SECOND + 1,
    1_700_000_000 * SECOND + 123_456_789,
)
"""Before 1970, past 2038, 2106, 2242 and 2400, and in our days: with nanoseconds."""
FAR_IDS = (2**21 - 1, 2**21, 2**31 + 7, 2**32 - 2)
"""The last that a ustar header holds, and some that it does not."""
_CONTENT = random.Random(21)  # noqa: S311 - the same tree each time


def grow(root: Path) -> list[str]:
    """Make the library ``root``, and return what a receipt must list as left out.

    Without root, entries that only root can create (owners, devices) are left out.
    """
    top = os.fsencode(root)
    os.makedirs(top)
    _names(_folder(top, b"names"))
    _long_paths(_folder(top, b"paths"))
    _sizes(_folder(top, b"sizes"))
    _modes(_folder(top, b"modes"))
    _hard_links(_folder(top, b"hard links"))
    _symlinks(_folder(top, b"symlinks"))
    _xattrs(_folder(top, b"xattrs"))
    _sparse(_folder(top, b"sparse"))
    skipped = _specials(_folder(top, b"specials"))
    if os.geteuid() == 0:
        _owners(_folder(top, b"owners"))
    _times(_folder(top, b"times"))
    return skipped


def remove_specials(root: Path) -> None:
    """Remove what is no library content without changing any folder's time."""
    for folder, _, names in os.walk(os.fsencode(root)):
        info = os.lstat(folder)
        for name in names:
            path = os.path.join(folder, name)
            mode = os.lstat(path).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
                os.unlink(path)
        os.utime(folder, ns=(info.st_atime_ns, info.st_mtime_ns))


def everything(root: Path) -> dict[bytes, os.stat_result]:
    """Return ``lstat`` of every path below ``root``, itself included, by relative path."""
    top = os.fsencode(root)
    found = {b".": os.lstat(top)}
    for folder, below, names in os.walk(top):
        for name in (*below, *names):
            path = os.path.join(folder, name)
            found[os.path.relpath(path, top)] = os.lstat(path)
    return found


def write(path: bytes, content: bytes = b"") -> None:
    """Write a file at ``path``."""
    with open(path, "wb") as file:
        file.write(content)


def _folder(above: bytes, name: bytes) -> bytes:
    path = os.path.join(above, name)
    os.mkdir(path)
    return path


def _names(top: bytes) -> None:
    """Every byte that a name can have, the longest names, and those that shells trip over."""
    odd = [b"n" * 255, "é".encode() * 127 + b"n", b"\xff" * 255, b" ", b"  blanks  "]
    odd += [b"line\nbreak", b"carriage\rreturn", b"back\\slash", b"\\n", b"-rf", b"--delete", b"~"]
    odd += [b"...", b".hidden", b"*", b"?", b"$(HOME)", b"'\"`", b"\x01\x1b[31m", b"\xe2\x80\xa8"]
    odd += [b"caf\xe9", b"\xed\xa0\x80", b"\xf0\x9f\x8e\xac", b"e\xcc\x81", b"\xc3\xa9", b"con"]
    for name in odd:
        write(os.path.join(top, name), name)
        write(os.path.join(_folder(top, b"in " + name[:252]), name), name)
    every = bytes(byte for byte in range(1, 256) if byte != ord("/"))
    write(os.path.join(top, every[:127]))
    write(os.path.join(top, every[127:]))
    # Siblings that sort otherwise by whole path than name by name.
    for name in (b"sort", b"sort-", b"sort.d"):
        write(os.path.join(_folder(top, name), b"file"), name)


def _long_paths(top: bytes) -> None:
    """Paths around each limit of a ustar header, and some over 1,000 characters."""
    for length in (98, 99, 100, 101, 154, 155, 156, 157, 254, 255):
        folder = _folder(top, b"%03d" % length + b"d" * (length - 3))
        for name in (b"f", b"f" * 99, b"f" * 100, b"f" * 101):
            write(os.path.join(folder, name), name)
    path = _folder(top, b"deep")
    for level in range(8):
        path = _folder(path, b"%d" % level + b"p" * 200)
        write(os.path.join(path, b"file"), b"%d" % level)
    for level in range(120):
        path = _folder(path, b"%d" % level)
    write(os.path.join(path, b"bottom"))


def _sizes(top: bytes) -> None:
    """Around a tar block, around a frame, and what together with its header fills one exactly."""
    blocks = (0, 1, 511, 512, 513, 1023, 1024, 1025)
    frames = (FRAME - 513, FRAME - 512, FRAME - 511, FRAME - 1, FRAME, FRAME + 1, 2 * FRAME)
    for size in (*blocks, *frames, 2 * FRAME + 511):
        write(os.path.join(top, b"%d" % size), _CONTENT.randbytes(size))
    _folder(top, b"empty folder")
    _folder(_folder(top, b"only a folder in it"), b"empty folder")


def _modes(top: bytes) -> None:
    """No permission at all, setuid, setgid, sticky, read-only: on files and folders."""
    for mode in (0o0000, 0o0001, 0o0200, 0o0400, 0o0444, 0o0555, 0o0777, 0o1644, 0o4755, 0o2755):
        path = os.path.join(top, b"file %04o" % mode)
        write(path, b"%o" % mode)
        os.chmod(path, mode)
    path = os.path.join(top, b"large file 0000")
    write(path, _CONTENT.randbytes(FRAME + 77))
    os.chmod(path, 0)
    for mode in (0o0000, 0o0111, 0o0500, 0o0555, 0o0777, 0o1777, 0o2775, 0o7777):
        path = _folder(top, b"folder %04o" % mode)
        write(os.path.join(path, b"file"))
        _folder(_folder(path, b"below"), b"empty")
        os.chmod(path, mode)


def _hard_links(top: bytes) -> None:
    """Across folders, of small, large, empty, unreadable files and of a symlink."""
    here, there = _folder(top, b"here"), _folder(top, b"there")
    for name, size in ((b"small", 100), (b"empty", 0), (b"large", FRAME + 1)):
        write(os.path.join(here, name), _CONTENT.randbytes(size))
        for path in (there, top):
            os.link(os.path.join(here, name), os.path.join(path, b"also " + name))
    os.symlink(b"small", os.path.join(here, b"link"))
    os.link(os.path.join(here, b"link"), os.path.join(there, b"link"), follow_symlinks=False)
    write(os.path.join(there, b"0000"), b"secret")
    os.chmod(os.path.join(there, b"0000"), 0)
    os.link(os.path.join(there, b"0000"), os.path.join(here, b"\xff0000"))


def _symlinks(top: bytes) -> None:
    """Dangling, absolute, looping, to folders, out of the library, and very long ones."""
    targets = [b"nowhere", b"/nowhere/at/all", b"/etc/passwd", b"/", b".", b"..", b"../../../.."]
    targets += [b"x/" * 1500, b"y" * 4095, b"caf\xe9", b"line\nbreak", b"trailing/", b"-rf", b" "]
    targets += [b"t" * length for length in (99, 100, 101)] + ["é".encode() * 50]
    for number, target in enumerate(targets):
        os.symlink(target, os.path.join(top, b"%02d" % number))
    os.symlink(b"itself", os.path.join(top, b"itself"))
    os.symlink(b"pong", os.path.join(top, b"ping"))
    os.symlink(b"ping", os.path.join(top, b"pong"))


def _xattrs(top: bytes) -> None:
    """Binary, empty and long values; lengths at which a pax record's own length gets a digit."""
    folder, file = _folder(top, b"folder"), os.path.join(top, b"file")
    write(file, b"has xattrs")
    large, readonly = os.path.join(top, b"large"), os.path.join(top, b"readonly large")
    for path in (large, readonly):
        write(path, _CONTENT.randbytes(FRAME + 5))
    for path in (folder, file, large, readonly):
        os.setxattr(path, "user.binary", bytes(range(256)))
        os.setxattr(path, "user.empty", b"")
        os.setxattr(path, "user.h\xe4 with = and blank", b"line\nbreak=\0")
    os.chmod(readonly, 0o444)
    for length in (*range(73, 79), *range(972, 978)):
        path = os.path.join(top, b"%d" % length)
        write(path)
        os.setxattr(path, "user.k", b"v" * length)


def _sparse(top: bytes) -> None:
    """Holes at start, middle and end, nothing but a hole, and space without data."""
    piece = _CONTENT.randbytes(10_000)
    for name, size in ((b"small", 1024 * 1024 + 7), (b"large", 3 * FRAME + 7)):
        for where, offsets in {
            b"start": (size - 10_000,),
            b"middle": (0, size - 10_000),
            b"end": (0,),
            b"all": (),
            b"islands": range(100_000, size - 10_000, 300_000),
        }.items():
            with open(os.path.join(top, name + b" hole at " + where), "wb") as file:
                file.truncate(size)
                for offset in offsets:
                    os.pwrite(file.fileno(), piece, offset)
    with open(os.path.join(top, b"zeros"), "wb") as file:
        file.write(bytes(200_000))
    with open(os.path.join(top, b"allocated, never written"), "wb") as file:
        file.truncate(FRAME + 1)
        with contextlib.suppress(OSError):  # a filesystem that cannot
            os.posix_fallocate(file.fileno(), 65_536, 65_536)


def _specials(top: bytes) -> list[str]:
    """A FIFO, a socket and devices."""
    made = []
    for name, kind, what in (
        (b"fifo", stat.S_IFIFO, "FIFO"),
        (b"socket", stat.S_IFSOCK, "socket"),
        (b"null", stat.S_IFCHR, "character device"),
        (b"disk", stat.S_IFBLK, "block device"),
    ):
        with contextlib.suppress(PermissionError):  # devices are made by root alone
            os.mknod(os.path.join(top, name), kind | 0o644, os.makedev(1, 3))
            made.append(f"Library/specials/{name.decode()} ({what})")
    write(os.path.join(top, b"file"), b"content among them")
    return sorted(made)


def _owners(top: bytes) -> None:
    """Owners that a ustar header cannot say, on all kinds of entries."""
    for number, uid in enumerate(FAR_IDS):
        gid = FAR_IDS[-1 - number]
        folder = _folder(top, b"%d" % uid)
        file, link = os.path.join(folder, b"setuid"), os.path.join(folder, b"link")
        write(file, b"owned")
        os.symlink(b"setuid", link)
        for path in (file, link, folder):
            os.chown(path, uid, gid, follow_symlinks=False)
        os.chmod(file, 0o6755)  # noqa: S103 - setuid and setgid must arrive


def _times(top: bytes) -> None:
    """Far times on files, folders and symlinks; last of all, since all else changes them."""
    for time in FAR_TIMES:
        folder = _folder(top, b"%d" % time)
        file, link, below = (os.path.join(folder, name) for name in (b"file", b"link", b"below"))
        write(file, b"%d" % time)
        os.symlink(b"file", link)
        os.mkdir(below)
        for path in (file, link, below, folder):
            os.utime(path, ns=(time, time), follow_symlinks=False)
    os.utime(top, ns=(1, 1))
    os.utime(os.path.dirname(top), ns=(SECOND, 2**32 * SECOND + 5))
