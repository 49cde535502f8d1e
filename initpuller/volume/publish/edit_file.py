"""A file of the verified library that the user wants otherwise: changed in staging, and noted."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from initpuller.volume.filesystem import hash_file
from shared.durable import fsync_folder, replace_durably
from shared.errors import IntegrityError, storage_errors
from shared.frames.sha256sums import format_sum, parse_sum, read_line
from shared.tree.xattrs import read_xattrs

if TYPE_CHECKING:
    from collections.abc import Callable

    from initpuller.volume.staging.staging import Staging


def amend(staging: Staging, name: str, change: Callable[[bytes], bytes]) -> None:
    """Replace the file ``name`` below staging; it keeps owner, mode, times and extended attributes.

    Its frame counts as not there from then on: a run that does not get as far as the receipt costs
    that file again. Staging is verified, and its list of digests gets the new one.

    Raises:
        IntegrityError: there is no such file.
    """
    path = staging.regular_file(name)
    if path is None:
        raise IntegrityError("the file to change did not arrive", path=name)
    layout, snapshot = staging.layout, staging.manifest.name
    plan, wanted = staging.manifest.plan, os.fsencode(name)
    [numbered] = [each for each in enumerate(staging.manifest) if each[1].path == wanted]
    with storage_errors(path):
        staging.journal.redo(plan.frames_of(*numbered))
        staging.forget([numbered])
        _replace(path, layout.amended(snapshot), change)
        line = format_sum(hash_file(path), wanted)
        _replace_sum(layout.sums(snapshot), layout.amended(snapshot), line)


def _replace(path: str, temporary: str, change: Callable[[bytes], bytes]) -> None:
    with open(path, "rb") as old, open(temporary, "wb") as new:
        info = os.fstat(old.fileno())
        new.write(change(old.read()))
        new.flush()
        os.fchown(new.fileno(), info.st_uid, info.st_gid)
        for key, value in read_xattrs(old.fileno()).items():
            os.setxattr(new.fileno(), key, value)
        os.fchmod(new.fileno(), info.st_mode & 0o7777)
        os.utime(new.fileno(), ns=(info.st_atime_ns, info.st_mtime_ns))
    folder = os.path.dirname(path)
    info = os.stat(folder)
    replace_durably(temporary, path)
    os.utime(folder, ns=(info.st_atime_ns, info.st_mtime_ns))
    fsync_folder(folder)


def _replace_sum(sums: str, temporary: str, wanted: bytes) -> None:
    _, name = parse_sum(wanted.removesuffix(b"\n")) or (b"", b"")
    with open(sums, "rb") as old, open(temporary, "wb") as new:
        while line := read_line(old):
            found = parse_sum(line.removesuffix(b"\n"))
            new.write(wanted if found is not None and found[1] == name else line)
    replace_durably(temporary, sums)
