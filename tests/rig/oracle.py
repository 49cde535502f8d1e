"""Independent judges of whether two trees are the same: rsync and sha256sum, not our code."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

_ESCAPED = {b"\\n": b"\n", b"\\r": b"\r", b"\\\\": b"\\"}
"""Bytes of a name by how sha256sum(1) writes them."""


def rsync_differences(
    source: Path, target: Path, *, owner: bool = True, only: Sequence[str] | None = None
) -> list[str]:
    """Return what rsync would change in ``target`` to match ``source``: contents, attributes.

    Modes, times (ns), hard links, xattrs, symlinks, if ``owner`` owners; also what is too many. If
    ``only`` is given: of these relative paths, and without what is too many.
    """
    options = ["-aHX" if owner else "-rlptHX", "--checksum", "-n", "--itemize-changes"]
    options.append("--modify-window=-1")  # the default compares whole seconds
    if only is None:
        options.append("--delete")
    else:
        options += ["--files-from=-", "--from0", "--no-implied-dirs"]
    done = subprocess.run(
        ["rsync", *options, f"{source}/", f"{target}/"],
        check=True,
        input="".join(f"{each}\0" for each in only or ()),
        capture_output=True,
        text=True,
        errors="surrogateescape",
    )
    return done.stdout.splitlines()


def sums_hold(target: Path) -> bool:
    """Return whether ``sha256sum -c`` accepts the receipt's list."""
    done = subprocess.run(
        ["sha256sum", "--check", "--quiet", "--strict", ".plexodus/SHA256SUMS"],
        cwd=target,
        check=False,
        capture_output=True,
    )
    return done.returncode == 0


def listed_files(target: Path) -> list[Path]:
    """Return the files that the receipt's list names, relative to ``target``.

    GNU coreutils escape a name with a backslash or a line break, and mark its line (sha256sum(1)).
    """
    found = []
    for line in (target / ".plexodus" / "SHA256SUMS").read_bytes().splitlines():
        digest, _, name = line.partition(b"  ")
        if digest.startswith(b"\\"):
            name = re.sub(rb"\\[nr\\]", lambda escape: _ESCAPED[escape[0]], name)
        found.append(Path(os.fsdecode(name)))
    return found


def omitted(target: Path) -> dict[str, str | int]:
    """Return what the list beside the receipt says was left out, read by zstd and json alone.

    By path: the bytes of what was excluded; the reason why anything else was left out. The counts
    and the digest are compared with those of the receipt.
    """
    path = target / ".plexodus" / "omitted.jsonl.zst"
    done = subprocess.run(["zstd", "-dc", path], check=True, capture_output=True)
    found: dict[str, str | int] = {}
    for line in done.stdout.splitlines():
        record: dict[str, Any] = json.loads(line)
        name = record.get("path") or base64.b64decode(record["path_b64"]).decode("utf-8", "replace")
        is_excluded = record["reason"] == "excluded"
        found[name] = record.get("size", 0) if is_excluded else record["reason"]
    receipt = json.loads((target / ".plexodus" / "receipt.json").read_text())
    excluded = sum(isinstance(value, int) for value in found.values())
    assert receipt["omitted"] == {
        "excluded": excluded,
        "skipped": len(found) - excluded,
        "bytes": path.stat().st_size,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    return found
