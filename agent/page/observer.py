"""Reads the state of the move, for all who look at it."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from agent.host.migration_log import MigrationEvent, MigrationLog
from agent.page.state import Downtime, MoveState, Transfer
from agent.page.timeline import Milestone, Stage, timeline, trouble
from agent.server.credentials import token_hash_path
from agent.source.activity import Phase
from agent.status import MEANING, plex_on_vm, what_undo_would_do
from shared import __version__
from shared.checks import duration
from shared.frames.plan import FRAME

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.cutover.control import CutoverControl
    from agent.host.check_reports import CheckReports
    from agent.page.rates import Rates
    from agent.page.timeline import Step
    from agent.settings import Settings
    from agent.source.activity import Activity, Progress
    from agent.source.library import CurrentLibrary
    from shared.wire.protocol import CutoverPhase

_FRESH = 0.9
"""Seconds for which all who look get the same state."""
_PLEX_SECONDS = 5.0
"""Seconds between two looks at Plex, for which systemd is asked."""
_SILENT = 60.0
"""Seconds without a request after which the puller is said to be silent."""
_TO_DO = {
    Milestone.PAIRED: "Run 'plexodus-agent pair' on the VM.",
    Milestone.CHECKED: "Run 'plexodus-puller preflight', or start the pod.",
    Milestone.COPIED: "Run 'plexodus-puller pull', or start the pod. Plex runs while it copies.",
    Milestone.STOPPED: "The puller has the agent stop Plex once little is left to copy.",
    Milestone.STARTED: "The pod starts Plex on the volume.",
}
"""What has to happen for a step that waits for somebody."""
_UNDER_WAY = {
    Milestone.CHECKED: "Both sides are checked.",
    Milestone.COPIED: "Plex runs. What changes meanwhile is transferred again.",
    Milestone.STOPPED: "Plex has the order to stop.",
    Milestone.CHANGES: "What has changed since the last live pass is transferred.",
    Milestone.VERIFIED: "The volume is compared with the source.",
    Milestone.COMMITTED: "The agent puts up the fence.",
}


@dataclass(frozen=True)
class Sources:
    """The parts of the agent that know something of the move."""

    settings: Settings
    library: CurrentLibrary
    control: CutoverControl
    activity: Activity
    rates: Rates
    reports: CheckReports


@dataclass(frozen=True)
class Observation:
    """The state of the move, and its log."""

    move: MoveState
    log: Sequence[MigrationEvent]


class Observer:
    """Reads ``sources`` at most once a second, however many look."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._log = MigrationLog(sources.settings.state)
        self._events: list[MigrationEvent] = []
        self._offset = 0
        self._plex = 0.0, ""
        self._seen: tuple[float, Observation] | None = None
        self._reading = asyncio.Lock()

    async def look(self) -> Observation:
        """Return the state of the move, which is at most a second old.

        Raises:
            StorageError: the record of the cutover cannot be read.
            OSError: the migration log cannot be read.
        """
        async with self._reading:
            now = time.monotonic()
            if self._seen is None or now - self._seen[0] > _FRESH:
                self._seen = now, await asyncio.to_thread(self._read, now)
            return self._seen[1]

    def forget(self) -> None:
        """Have the next look read everything, because something was done just now."""
        self._seen, self._plex = None, (0.0, "")

    def _read(self, now: float) -> Observation:
        sources = self._sources
        self._read_log()
        standing = sources.control.standing()
        if now - self._plex[0] > _PLEX_SECONDS or not self._plex[1]:
            self._plex = now, plex_on_vm(sources.settings)
        reports = sources.reports.read()
        known = {Milestone.PAIRED: _time_of(token_hash_path(sources.settings.state))}
        known[Milestone.CHECKED] = max((each.at for each in reports.get("source", [])), default="")
        progress = sources.activity.progress()
        silence = None if sources.activity.heard is None else now - sources.activity.heard
        is_heard = silence is not None and silence < _SILENT
        steps = timeline(
            {milestone: at for milestone, at in known.items() if at},
            self._events,
            _under_way(standing.phase, sources.activity, progress if is_heard else None),
        )
        reached = {step.id: step.at for step in steps if step.stage is Stage.DONE}
        event = trouble(self._events)
        move = MoveState(
            version=__version__,
            host=sources.library.last.about.host,
            library=sources.library.last.about.path,
            cutover=standing,
            meaning=MEANING[standing.phase],
            lease=_lease(standing.seconds, standing.phase),
            fence=_fence(is_up=sources.control.fence.is_whole(), phase=standing.phase),
            plex_on_vm=self._plex[1],
            plex_in_cluster=_in_cluster(self._events, reached),
            puller=_puller(silence),
            agent=str(sources.activity),
            steps=steps,
            next=_what_next(steps),
            trouble="" if event is None else event.about,
            transfer=_transfer(progress, sources.rates.recent),
            downtime=Downtime(
                _stopped_for(self._events, standing.phase), _predicted(sources.activity)
            ),
            rates=list(sources.rates.seconds),
            checks=reports,
            undo=what_undo_would_do(standing.phase),
        )
        return Observation(move, list(self._events))

    def _read_log(self) -> None:
        while True:
            piece, self._offset = self._log.read(self._offset, as_json=True)
            if not piece:
                return
            self._events += msgspec.json.Decoder(MigrationEvent).decode_lines(piece)


def _what_next(steps: Sequence[Step]) -> str:
    """Return what is under way, or what has to happen next; empty at the end."""
    for step in steps:
        if step.stage is Stage.NOW:
            return _UNDER_WAY[step.id]
    for step in steps:
        if step.stage is Stage.NEXT:
            return _TO_DO.get(step.id, "The puller continues.")
    return ""


def _under_way(
    phase: CutoverPhase, activity: Activity, progress: Progress | None
) -> Milestone | None:
    """Return the step that is under way; no ``progress`` if no puller is at work."""
    match phase:
        case "stopping":
            return Milestone.STOPPED
        case "stopped":
            is_checked = Phase.CHECKING in activity.running
            return Milestone.VERIFIED if is_checked else Milestone.CHANGES
        case "committing":
            return Milestone.COMMITTED
        case "idle":
            if Phase.INSPECTING in activity.running:
                return Milestone.CHECKED
            if Phase.SCANNING in activity.running:
                return Milestone.COPIED
            if progress is not None and progress.requested < progress.snapshot.frames:
                is_cold = progress.snapshot.kind == "cold"
                return Milestone.CHANGES if is_cold else Milestone.COPIED
            return None
        case "committed" | "undoing":
            return None


def _transfer(progress: Progress | None, rate: float) -> Transfer | None:
    if progress is None:
        return None
    about = progress.snapshot
    total = min(about.content_bytes, about.frames * FRAME)
    sent = total * progress.requested // about.frames
    return Transfer(
        snapshot=about.id,
        kind=about.kind,
        entries=about.entries,
        frames=about.frames,
        requested=progress.requested,
        total_bytes=total,
        sent_bytes=sent,
        seconds_left=(total - sent) / rate if rate and sent < total else None,
    )


def _predicted(activity: Activity) -> float | None:
    """Return the seconds of the latest live pass: its scan, and its transfer."""
    if activity.live_seconds is None:
        return None
    return activity.latest[Phase.SCANNING] + activity.live_seconds


def _stopped_for(log: Sequence[MigrationEvent], phase: CutoverPhase) -> float | None:
    """Return for how long Plex is, or was, stopped by the latest cutover; None if by none."""
    began, end = "", ""
    for event in log:
        if event.event == "stop":
            began, end = event.at, ""
        elif event.event in ("started", "undone") and not end:
            end = event.at
    if not began or (phase == "idle" and not end):
        return None
    until = datetime.fromisoformat(end) if end else datetime.now(UTC)
    return (until - datetime.fromisoformat(began)).total_seconds()


def _lease(seconds: float, phase: CutoverPhase) -> str:
    if phase == "committed":
        return "no lease: Plex stays stopped for good"
    if not seconds:
        return "no lease: nothing keeps Plex stopped"
    return f"Plex is started again in {duration(seconds)}, unless the puller renews the lease"


def _fence(*, is_up: bool, phase: CutoverPhase) -> str:
    if is_up:
        return "up: nothing can start Plex on the VM"
    return "missing: the agent puts it up again" if phase == "committed" else "down"


def _in_cluster(log: Sequence[MigrationEvent], reached: dict[Milestone, str]) -> str:
    """Return what the sidecar has last said of Plex in its pod, since the library was published."""
    if Milestone.PUBLISHED not in reached:
        return "not started: no library is published"
    said = [each for each in log if each.event in ("started", "migrated", "attention", "done")]
    if not said or said[-1].event == "done":
        return "nothing is known yet: its sidecar reports once Plex runs"
    return said[-1].about


def _puller(silence: float | None) -> str:
    if silence is None:
        return "has asked for nothing since the agent was started"
    if silence < _SILENT:
        return "is at work"
    return f"has been silent for {duration(silence)}. It resumes with what it has"


def _time_of(path: str) -> str:
    """Return when a file was written, in RFC 3339, UTC; empty without one."""
    try:
        written = os.stat(path).st_mtime
    except FileNotFoundError:
        return ""
    return datetime.fromtimestamp(written, UTC).isoformat(timespec="seconds")
