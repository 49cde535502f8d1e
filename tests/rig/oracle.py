"""Independent judges of whether two trees are the same: rsync and sha256sum, not our code."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def rsync_differences(source: Path, target: Path, *, owner: bool = True) -> list[str]:
    """What rsync would change to make ``target`` like ``source``: contents, all attributes.

    Modes, times (ns), hard links, xattrs, symlinks, if ``owner`` owners; also what is too many.
    """
    options = ["-aHX" if owner else "-rlptHX", "--checksum", "-n", "--itemize-changes", "--delete"]
    done = subprocess.run(
        ["rsync", *options, f"{source}/", f"{target}/"],
        check=True,
        capture_output=True,
        text=True,
        errors="surrogateescape",
    )
    return done.stdout.splitlines()


def sums_hold(target: Path) -> bool:
    """Whether ``sha256sum -c`` is content with the receipt's list."""
    done = subprocess.run(
        ["sha256sum", "--check", "--quiet", "--strict", ".plexodus/SHA256SUMS"],
        cwd=target,
        check=False,
        capture_output=True,
    )
    return done.returncode == 0
