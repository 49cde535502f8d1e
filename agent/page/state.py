"""The state of the move at one time: the data of an event, and the content of the page."""

from __future__ import annotations

import msgspec

from agent.host.check_reports import DatedCheck, Side
from agent.page.timeline import Step
from shared.wire.protocol import CutoverStanding, Kind


class Transfer(msgspec.Struct, frozen=True):
    """How far the latest snapshot has been transferred, by the frames that were requested."""

    snapshot: str
    kind: Kind
    entries: int
    frames: int
    requested: int
    total_bytes: int
    """Bytes of all frames of the snapshot, at most."""
    sent_bytes: int
    seconds_left: float | None
    """None if nothing is being sent, or nothing is left."""


class Downtime(msgspec.Struct, frozen=True):
    """For how long Plex is stopped."""

    seconds: float | None
    """Since the order to stop, until Plex runs, or is published; None if it was not stopped."""
    predicted: float | None
    """As long as the latest live pass; None while one is under way, and before the first."""
    about: str
    """The seconds in words."""


class MoveState(msgspec.Struct, frozen=True):
    """The state of the move."""

    version: str
    """The agent's."""
    host: str
    library: str
    cutover: CutoverStanding
    meaning: str
    """The phase of the cutover in words."""
    lease: str
    fence: str
    plex_on_vm: str
    plex_in_cluster: str
    puller: str
    """What the puller does, or for how long it has been silent."""
    agent: str
    """What the agent does."""
    steps: list[Step]
    next: str
    """What is under way, or has to happen next, in words."""
    trouble: str
    """What somebody has to look at; empty if all is well."""
    transfer: Transfer | None
    downtime: Downtime
    rates: list[int]
    """Bytes sent in each of the last seconds, the latest last."""
    checks: dict[Side, list[DatedCheck]]
    """The latest results of the checks, by side."""
    undo: str
    """What an undo would do."""
