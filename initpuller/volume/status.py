"""The commands ``status`` and ``verify``: facts from the volume, without the agent."""

from __future__ import annotations

import os
from typing import Literal

import msgspec

from initpuller.volume.filesystem import hash_file, opened
from initpuller.volume.publish.verify import changed_files
from initpuller.volume.records.journal import count_done
from initpuller.volume.records.receipt import Receipt, load_receipt
from initpuller.volume.records.state import load_state
from initpuller.volume.records.target import open_layout
from shared.errors import StorageError, TargetConflict, TreeDiffers, storage_errors
from shared.plex.library import ServerFacts, server_folder
from shared.plex.preferences import read_preferences

_PERCENT = 100
_ALMOST = 99


class Standing(msgspec.Struct):
    """The state of a pull."""

    phase: Literal[
        "nothing", "transferring", "ready", "committing", "publishing", "rehearsed", "done"
    ]
    """Ready: all is there that could be brought while Plex ran. Rehearsed: a copy to try is."""
    percent: int
    frames: int = 0
    frames_done: int = 0
    entries: int = 0
    content_bytes: int = 0
    snapshot: str = ""
    library: str = ""
    """Final path."""
    source: str = ""
    started: str = ""
    verified: str = ""
    runs: int = 0


def read_standing(target: str) -> Standing:
    """Return the state of the pull on a volume; nothing on it is changed."""
    layout = open_layout(target)
    receipt, state = load_receipt(layout), load_state(layout)
    if receipt is not None:
        return Standing(
            phase="rehearsed" if receipt.rehearsal else "done",
            percent=_PERCENT,
            entries=receipt.entries,
            content_bytes=receipt.content_bytes,
            snapshot=receipt.snapshot,
            library=layout.library(receipt.library.name),
            source=f"{receipt.library.host}:{receipt.library.path}",
            started=receipt.started,
            verified=receipt.verified,
            runs=receipt.runs,
        )
    if state is None:
        return Standing(phase="nothing", percent=0)
    about = state.snapshot
    with storage_errors(layout.folder):
        done = count_done(layout.journal(about.id), about.frames)
    is_ready = about.kind == "live" and done == about.frames and state.phase == "transferring"
    return Standing(
        phase="ready" if is_ready else state.phase,
        percent=_ALMOST * done // about.frames if about.frames else 0,
        frames=about.frames,
        frames_done=done,
        entries=about.entries,
        content_bytes=about.content_bytes,
        snapshot=about.id,
        library=layout.library(about.library.name),
        source=f"{about.library.host}:{about.library.path}",
        started=state.started,
        runs=state.runs,
    )


def as_json(standing: Standing) -> str:
    """Return one JSON object."""
    return msgspec.json.encode(standing).decode()


def as_text(standing: Standing) -> str:
    """Return a few lines for people."""
    pairs = {
        "phase": f"{standing.phase}, {standing.percent} %",
        "library": standing.library,
        "source": standing.source,
        "frames": f"{standing.frames_done} of {standing.frames}" if standing.frames else "",
        "entries": str(standing.entries or ""),
        "bytes": str(standing.content_bytes or ""),
        "snapshot": standing.snapshot,
        "started": standing.started,
        "verified": standing.verified,
        "runs": str(standing.runs or ""),
    }
    return "\n".join(f"{name:<9} {value}" for name, value in pairs.items() if value)


def moved_plex(target: str) -> tuple[ServerFacts, str]:
    """Return the facts of the server that was moved to this volume, and its owner's token.

    Raises:
        TargetConflict: none was.
    """
    layout = open_layout(target)
    receipt = load_receipt(layout)
    if receipt is None or receipt.plex is None:
        raise TargetConflict("no Plex was moved onto this volume", path=layout.receipt)
    server = server_folder(layout.library(receipt.library.name)) or ""
    try:
        with storage_errors(server):
            return receipt.plex, read_preferences(server).get("PlexOnlineToken", "")
    except ValueError as error:
        raise StorageError(f"Preferences.xml {error}", path=server) from error


def verify(target: str) -> Receipt:
    """Read every file of the receipt again, and return the receipt.

    Raises:
        TargetConflict: there is no receipt.
        TreeDiffers: files are not what was moved.
    """
    layout = open_layout(target)
    receipt = load_receipt(layout)
    if receipt is None:
        raise TargetConflict("there is no receipt, nothing was moved here", path=layout.receipt)
    with storage_errors(layout.receipt_sums):
        if hash_file(layout.receipt_sums).hex() != receipt.sums_sha256:
            raise StorageError("the list of digests is not the receipt's", path=layout.receipt_sums)
        with opened(layout.target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) as base:
            differences = list(changed_files(base, layout.receipt_sums))
    if differences:
        raise TreeDiffers(differences, layout.library(receipt.library.name))
    return receipt
