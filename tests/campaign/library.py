"""The library of the campaign: that of a Plex, with what only few libraries have."""

from __future__ import annotations

import os
import random
import tempfile
from contextlib import suppress
from typing import TYPE_CHECKING

from rig.plex.commands import SERVER

from bench.plexlibrary import LibraryShape, make_library

if TYPE_CHECKING:
    from pathlib import Path

_SHAPE = LibraryShape(300, 15_000_000, 10_000_000)
"""Its database is more than two frames, and Plex changes pages at its start and its end."""
_LARGE = 9_000_000
"""Bytes of a file that is more than two frames, and that Plex does not change."""
_SMALL_SPARSE, _LARGE_SPARSE = 300_000, 6_000_000
"""Bytes of files that are almost only holes; the latter has frames of its own."""
_ELSEWHERE = "/dev/shm"  # noqa: S108 - of the same kind as the volume
_ATTRIBUTE = "user.campaign"


def make_campaign_library(library: Path) -> None:
    """Make the library, whose folder does not exist."""
    make_library(library, _SHAPE)
    media = library / SERVER / "Media"
    media.mkdir(exist_ok=True)
    (media / "large.bin").write_bytes(random.Random(1).randbytes(_LARGE))
    odd = media / "odd"
    odd.mkdir()
    (odd / "file").write_bytes(b"two names\n")
    os.link(odd / "file", odd / "link")
    for name, size in (("small sparse", _SMALL_SPARSE), ("large sparse", _LARGE_SPARSE)):
        with (odd / name).open("wb") as file:
            file.truncate(size)
            file.seek(size // 2)
            file.write(b"between two holes\n")
    with open(os.fsencode(odd) + b"/caf\xe9", "wb") as file:
        file.write(b"no UTF-8\n")
    (odd / "owned").write_bytes(b"not of root\n")
    os.chown(odd / "owned", 1234, 5678)
    if _keeps_attributes():
        with suppress(OSError):
            os.setxattr(odd / "file", _ATTRIBUTE, b"\0value")


def _keeps_attributes() -> bool:
    """Return whether a tmpfs keeps extended attributes of users."""
    with tempfile.NamedTemporaryFile(dir=_ELSEWHERE) as file:
        try:
            os.setxattr(file.name, _ATTRIBUTE, b"value")
        except OSError:
            return False
    return True
