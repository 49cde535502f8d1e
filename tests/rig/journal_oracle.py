"""A judge of the journal: are the frames that it lists on the volume, with the right bytes?

The digest of a frame came from the agent. Here, hashlib computes it again from the files. Only the
division of the manifest into frames is taken from the programs' own code.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.frames.plan import FRAME, FramePlan, is_large
from shared.tree.manifest import Entry, Kind, parse_line

if TYPE_CHECKING:
    from collections.abc import Collection

    from shared.frames.plan import Frame

_LINE = re.compile(r"(done|kept|held|redo) (\d+)(?: ([0-9a-f]{64}))?\n")
_PIECE = 32 * 1024
_SHOWN = 5


def journal_damage(target: Path, excused: Collection[Path] = ()) -> list[str]:
    """Return what is wrong with a volume whose pull was interrupted; nothing without a pull.

    Args:
        target: the folder with ``.plexodus``.
        excused: files that were damaged on purpose, relative to the library.
    """
    ours = target / ".plexodus"
    records = [each for each in (ours / "state.json", ours / "receipt.json") if each.exists()]
    found = [f"{each.name} is not whole" for each in records if not _is_json(each)]
    if found or not (ours / "state.json").exists():
        return found
    snapshot = json.loads((ours / "state.json").read_bytes())["snapshot"]
    journal = ours / f"journal-{snapshot['id']}"
    tags = _journalled(journal) if journal.exists() else {}
    entries = _manifest(ours, snapshot)
    if entries is None:
        return [f"the journal has {len(tags)} frames, and there is no manifest"] if tags else []
    name = snapshot["library"]["name"]
    staged = ours / "staging" / name
    library = staged if staged.exists() else target / name
    plan = FramePlan()
    for entry in entries:
        plan.add(entry)
    for number, tag in tags.items():
        frame = plan[number]
        inside = [each for each in entries[frame.first : frame.first + frame.count] if _has(each)]
        paths = [Path(*Path(os.fsdecode(each.path)).parts[1:]) for each in inside]
        if not any(each in excused for each in paths):
            try:
                is_right = _digest(frame, inside, [library / each for each in paths]) == tag
            except OSError as error:
                found.append(f"frame {number} is journaled, but {error}")
                continue
            if not is_right:
                found.append(f"frame {number} is journaled, but has other bytes: {paths[:1]}")
    return found[:_SHOWN]


def journalled_frames(target: Path) -> int:
    """Return how many frames the journals on the volume list, with their digests."""
    return sum(len(_journalled(each)) for each in (target / ".plexodus").glob("journal-*"))


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_bytes())
    except ValueError:
        return False
    return True


def _journalled(path: Path) -> dict[int, str]:
    """Return the digest of each frame that is on the volume, if the journal has its digest."""
    found: dict[int, str] = {}
    with path.open(errors="replace", newline="\n") as journal:
        for text in journal:
            line = _LINE.fullmatch(text)
            if line is None:  # torn: the end of the journal
                break
            found.pop(int(line[2]), None)
            if line[1] in ("done", "kept") and line[3]:
                found[int(line[2])] = line[3]
    return found


def _manifest(ours: Path, snapshot: dict[str, Any]) -> list[Entry] | None:
    """Return the entries of a snapshot, from the file whose digest is the snapshot's name."""
    head = b"" if snapshot["kind"] == "cold" else f"{snapshot['kind']}\n".encode()
    for path in (ours / f"manifest-{snapshot['id']}", ours / "manifest.jsonl.zst"):
        done = subprocess.run(["zstd", "-dc", path], check=False, capture_output=True)
        if hashlib.sha256(head + done.stdout).hexdigest() == snapshot["id"]:
            return [parse_line(line) for line in done.stdout.splitlines()]
    return None


def _has(entry: Entry) -> bool:
    return entry.kind is Kind.FILE and not entry.kept


def _digest(frame: Frame, entries: list[Entry], paths: list[Path]) -> str:
    """Return the digest of a frame as docs/protocol.md defines it, from the files in it."""
    frame_digest = hashlib.sha256()
    for entry, path in zip(entries, paths, strict=True):
        start = frame.block * FRAME
        block = path.read_bytes()[start : start + FRAME]
        step = _PIECE if is_large(entry) else FRAME
        for place in range(0, max(1, len(block)), step):
            frame_digest.update(hashlib.sha256(block[place : place + step]).digest())
    return frame_digest.hexdigest()
