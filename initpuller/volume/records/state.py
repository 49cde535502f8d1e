"""The record of a pull under way, ``state.json``: it decides what the next run does.

The value is frozen. :mod:`~initpuller.volume.records.transitions` has every change of it, and
:class:`~initpuller.volume.records.pull_record.PullRecord` is the only writer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

from initpuller.volume.fidelity import Fidelity
from initpuller.volume.records.receipt import Receipt
from initpuller.volume.records.record_file import load_record
from shared.wire.protocol import Snapshot, StopFailure

if TYPE_CHECKING:
    from initpuller.volume.records.layout import Layout

Phase: TypeAlias = Literal["transferring", "committing", "publishing"]
"""Transfer what is missing; ask the agent to keep Plex stopped for good; rename."""


class State(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The progress of a pull, durable before each step is taken."""

    phase: Phase
    snapshot: Snapshot
    owner: str
    started: str
    runs: int = 1
    reown: bool = False
    """All attributes must be set again, because files were unpacked with others."""
    prune: bool = False
    """Staging holds files that do not belong to this snapshot."""
    cutover: str = ""
    """The cutover for which the agent stopped Plex last; empty if it never did."""
    databases: dict[str, str] = {}
    """As in the receipt."""
    failure: StopFailure | None = None
    """A failure while Plex was stopped, if a retry would meet it again."""
    fidelity: Fidelity | None = None
    """What the volume keeps of times and extended attributes; None: it was never probed."""
    top_mode: int = 0o755
    """From committing on: the mode of the library's own folder."""
    receipt: Receipt | None = None
    """From committing on: the receipt that is about to be valid."""


def load_state(layout: Layout) -> State | None:
    """Return the record of the pull that is under way, if one is."""
    return load_record(layout.state, State)
