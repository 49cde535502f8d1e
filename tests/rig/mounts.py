"""Filesystems of a test, and where they are mounted."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a filesystem")


@contextmanager
def ext4(place: Path, image: Path) -> Iterator[Path]:
    """Make an ext4 in the file ``image``, and mount it at the empty folder ``place``."""
    subprocess.run(["truncate", "-s", "200M", image], check=True)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    with mounted(place, "-o", "loop", image):
        (place / "lost+found").rmdir()
        yield place
    image.unlink()


@contextmanager
def filesystem(place: Path, image: Path, kind: str, *options: str) -> Iterator[Path]:
    """Make a filesystem of ``kind`` with mkfs's ``options``, and mount it at ``place``."""
    subprocess.run(["truncate", "-s", "700M", image], check=True)
    subprocess.run([f"mkfs.{kind}", *options, image], check=True, capture_output=True)
    with mounted(place, "-o", "loop", image):
        for each in place.iterdir():
            each.rmdir()
        yield place
    image.unlink()


@contextmanager
def mergerfs(place: Path, branches: list[Path], options: str) -> Iterator[Path]:
    """Mount folders as one at ``place``, as people do with several disks."""
    place.mkdir()
    what = ":".join(map(str, branches))
    subprocess.run(["mergerfs", "-o", options, what, place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=False, capture_output=True)


@contextmanager
def tmpfs(place: Path) -> Iterator[Path]:
    """Mount a new tmpfs at the folder ``place``."""
    with mounted(place, "-t", "tmpfs", "plexodus-test"):
        yield place


@contextmanager
def mounted(place: Path, *what: str | Path) -> Iterator[Path]:
    """Mount with the arguments ``what`` at the folder ``place``; unmount at the end.

    A test may have unmounted it before. A bind mount cannot be identified by its device.
    """
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", *what, place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=False, capture_output=True)


def unmount(place: Path) -> None:
    """Unmount what is mounted at ``place``, as an administrator does: a disk in use refuses."""
    subprocess.run(["umount", place], check=True)
