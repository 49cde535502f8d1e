"""A filesystem that nothing was deleted from yet, for one round of a comparison.

After mass deletions ext4 makes files twenty times slower for a while, so methods that come later
would pay for those before. Each round has a fresh ext4 in an image file, where we may mount (root);
elsewhere a folder that is not emptied before the end.
"""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_BYTES_AN_INODE = 4096
_NOW = "lazy_itable_init=0,lazy_journal_init=0"
"""What mkfs would leave to the kernel would go on during the measurement."""


@contextmanager
def fresh_volume(folder: Path, size: int) -> Iterator[Path]:
    """A folder with room for ``size`` bytes; what is in it is gone in the end."""
    place = folder / "volume"
    place.mkdir()
    if os.geteuid() != 0:
        yield place
        return
    image = folder / "volume.img"
    with image.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)
    options = ["-q", "-F", "-m", "0", "-i", str(_BYTES_AN_INODE), "-E", _NOW]
    subprocess.run(["mkfs.ext4", *options, str(image)], check=True)
    losetup = ["losetup", "--direct-io=on", "--find", "--show", str(image)]
    device = subprocess.run(losetup, check=True, capture_output=True, text=True).stdout.strip()
    try:
        subprocess.run(["mount", device, place], check=True)
        try:
            yield place
        finally:
            subprocess.run(["umount", place], check=True)
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)
        image.unlink()
        place.rmdir()
