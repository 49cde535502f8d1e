"""The state of a pull under way: it decides what the next run does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

from initpuller.volume.fidelity import Fidelity
from initpuller.volume.records.receipt import Receipt
from initpuller.volume.records.record_file import load_record, save_record
from shared.wire.protocol import Snapshot, StopFailure

if TYPE_CHECKING:
    from initpuller.volume.records.layout import Layout

Phase: TypeAlias = Literal["transferring", "committing", "publishing"]
"""Transfer what is missing; ask the agent to keep Plex stopped for good; rename."""


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
    return load_record(layout.state, State)


def save_state(layout: Layout, state: State) -> None:
    """Make ``state`` durable.

    Raises:
        StorageError: the volume does not take it.
    """
    save_record(layout.state, state)
