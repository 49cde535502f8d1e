"""The two small files that decide what a run does: state (under way) and receipt (done)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar

import msgspec

from initpuller.volume.fidelity import Fidelity, Losses
from shared.durable import write_durably
from shared.errors import StorageError, storage_error
from shared.plexlibrary import ServerFacts
from shared.protocol import Library, Snapshot, StopFailure

if TYPE_CHECKING:
    from initpuller.volume.layout import Layout

T = TypeVar("T")
Phase: TypeAlias = Literal["transferring", "committing", "publishing"]
"""Bring what is missing; ask the agent to keep Plex stopped for good; rename."""


class Receipt(msgspec.Struct, forbid_unknown_fields=True):
    """What was moved, from where, when, with which digests."""

    format: Literal[1]
    plexodus: str
    """Version of the puller that published."""
    library: Library
    snapshot: str
    """SHA-256 of the manifest's lines."""
    manifest_file_sha256: str
    """SHA-256 of ``manifest.jsonl.zst`` beside the receipt."""
    sums_sha256: str
    """SHA-256 of ``SHA256SUMS`` beside the receipt."""
    entries: int
    files: int
    content_bytes: int
    owner: str
    """``keep``, or the ``UID:GID`` that everything was given."""
    exclude: list[str]
    excluded: list[str]
    skipped: list[str]
    """What is no library content and was left out: FIFOs, sockets, devices."""
    scanned: str
    started: str
    verified: str
    runs: int
    """How many runs of the puller it took."""
    preferences: dict[str, str] = {}
    """Plex' preferences that were set: so ``Preferences.xml`` is not as in the manifest."""
    databases: dict[str, str] = {}
    """What the check of each of the source's databases found, or why it was not checked."""
    plex: ServerFacts | None = None
    """What the server was, if it is Plex."""
    rehearsal: bool = False
    """Plex ran on the VM, and goes on there: for trying, not for moving."""
    set_aside: str | None = None
    """Where what had the library's name before has gone."""
    losses: Losses | None = None
    """Which attributes of the source the volume cannot keep; None: it keeps all."""


class State(msgspec.Struct, forbid_unknown_fields=True):
    """Where a pull stands, written durably at each step."""

    phase: Phase
    snapshot: Snapshot
    owner: str
    started: str
    runs: int = 1
    reown: bool = False
    """Files were unpacked for another owner than now wanted."""
    prune: bool = False
    """Staging holds files of an earlier snapshot that are not wanted any more."""
    cutover: str = ""
    """What Plex on the VM was stopped by, if it was."""
    databases: dict[str, str] = {}
    """As in the receipt."""
    failure: StopFailure | None = None
    """While Plex was stopped for us, if a retry would meet it again."""
    fidelity: Fidelity | None = None
    """What the volume keeps of times and extended attributes; None: it was never probed."""
    top_mode: int = 0o755
    """From committing on: the mode of the library's own folder."""
    receipt: Receipt | None = None
    """From committing on: the receipt that is about to be valid."""


def load_state(layout: Layout) -> State | None:
    """The state of the pull that is under way, if one is.

    Raises:
        StorageError: the file is there and cannot be read.
    """
    return _load(layout.state, State)


def save_state(layout: Layout, state: State) -> None:
    """Make ``state`` durable.

    Raises:
        StorageError: the volume does not take it.
    """
    _save(layout.state, state)


def load_receipt(layout: Layout) -> Receipt | None:
    """The receipt, if there is one.

    Raises:
        StorageError: the file is there and cannot be read.
    """
    return _load(layout.receipt, Receipt)


def save_receipt(layout: Layout, receipt: Receipt) -> None:
    """Make ``receipt`` durable.

    Raises:
        StorageError: the volume does not take it.
    """
    _save(layout.receipt, receipt)


def _load(path: str, kind: type[T]) -> T | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            return msgspec.json.decode(file.read(), type=kind)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except msgspec.MsgspecError as error:
        raise StorageError(
            f"a record of the puller that cannot be read ({error})",
            path=path,
            hint="It is written in one step, so something else changed it. Move it away to begin "
            "anew.",
        ) from error
    except OSError as error:
        raise storage_error(error, path) from error


def _save(path: str, record: msgspec.Struct) -> None:
    try:
        write_durably(path, msgspec.json.format(msgspec.json.encode(record)) + b"\n")
    except OSError as error:
        raise storage_error(error, path) from error
