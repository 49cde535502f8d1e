"""Reads the state of the move, for all who look at it."""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from agent.host.migration_log import MigrationEvent, MigrationLog
from agent.page import words
from agent.page.state import Downtime, MoveState, Transfer
from agent.page.story import MoveStory, utc_now
from agent.page.timeline import Milestone, steps
from agent.server.credentials import token_hash_path
from agent.source.activity import Phase
from agent.status import MEANING, plex_on_vm, what_undo_would_do
from shared import __version__, typed_json
from shared.frames.plan import FRAME

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.cutover.control import CutoverControl
    from agent.host.check_reports import CheckReports, DatedCheck, Side
    from agent.page.rates import Rates
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
_LINES = 300
"""Lines of the log that are kept for the page."""


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
    """The state of the move, and the last lines of its log."""

    move: MoveState
    log: Sequence[MigrationEvent]


class Observer:
    """Reads ``sources`` at most once a second, however many look."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._log = MigrationLog(sources.settings.state)
        self._story = MoveStory()
        self._lines: deque[MigrationEvent] = deque(maxlen=_LINES)
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
        sources, activity = self._sources, self._sources.activity
        self._read_log()
        standing = sources.control.standing()
        if now - self._plex[0] > _PLEX_SECONDS or not self._plex[1]:
            self._plex = now, plex_on_vm(sources.settings)
        reports, progress = sources.reports.read(), activity.progress()
        silence = _silence(activity, now)
        is_at_work = silence is not None and silence < _SILENT
        reached = self._known(reports) | self._story.reached(standing)
        now_at = under_way(standing.phase, activity, progress if is_at_work else None)
        plan = steps({each: at for each, at in reached.items() if each is not now_at}, now_at)
        trouble = self._story.trouble
        move = MoveState(
            version=__version__,
            host=sources.library.last.about.host,
            library=sources.library.last.about.path,
            cutover=standing,
            meaning=MEANING[standing.phase],
            lease=words.lease(standing),
            fence=words.fence(sources.settings, standing.phase, sources.control.fence.is_whole()),
            plex_on_vm=self._plex[1],
            plex_in_cluster=words.in_cluster(self._story, Milestone.PUBLISHED in reached),
            puller=words.puller(silence, _SILENT),
            agent=str(activity),
            steps=plan,
            next=words.what_next(plan, standing.phase),
            trouble=words.trouble(standing, "" if trouble is None else trouble.about),
            transfer=_transfer(progress, sources.rates.recent),
            downtime=self._downtime(standing.phase, now_at),
            rates=list(sources.rates.seconds),
            checks=reports,
            undo=what_undo_would_do(standing.phase),
        )
        return Observation(move, list(self._lines))

    def _read_log(self) -> None:
        """Read what was added. A log that is shorter than before was replaced: begin again."""
        if self._log.size() < self._offset:
            self._offset, self._story = 0, MoveStory()
            self._lines.clear()
        while True:
            piece, self._offset = self._log.read(self._offset, as_json=True)
            if not piece:
                return
            for event in events_in(piece):
                self._story.add(event)
                self._lines.append(event)

    def _known(self, reports: dict[Side, list[DatedCheck]]) -> dict[Milestone, tuple[str, str]]:
        """Return what the log does not say: when the agent was paired, and the source checked."""
        checked = max((each.at for each in reports.get("source", [])), default="")
        known = {
            Milestone.PAIRED: _time_of(token_hash_path(self._sources.settings.state)),
            Milestone.CHECKED: checked,
        }
        return {each: (at, "") for each, at in known.items() if at}

    def _downtime(self, phase: CutoverPhase, now_at: Milestone | None) -> Downtime:
        found = self._story.downtime(utc_now())
        activity = self._sources.activity
        predicted = None if now_at is Milestone.COPIED else activity.live_seconds
        if found is None:
            return Downtime(None, predicted, "none")
        seconds, is_over = found
        return Downtime(seconds, predicted, words.downtime(seconds, phase, is_over=is_over))


def under_way(
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
        case "committed" | "undoing":
            return None
        case "idle":
            return _at_work(activity, progress)


def _at_work(activity: Activity, progress: Progress | None) -> Milestone | None:
    """Return what is done while Plex runs, or was stopped by hand."""
    is_checked = Phase.CHECKING in activity.running
    if progress is not None:
        is_cold = progress.snapshot.kind == "cold"
        if is_cold and is_checked:
            return Milestone.VERIFIED
        if not progress.is_complete or activity.running & {Phase.HASHING, Phase.CHECKING}:
            return Milestone.CHANGES if is_cold else Milestone.COPIED
    if Phase.SCANNING in activity.running:
        return Milestone.COPIED
    return Milestone.CHECKED if Phase.INSPECTING in activity.running else None


def events_in(piece: bytes) -> list[MigrationEvent]:
    """Return the events in lines of the log. Whatever is not an event is left out."""
    found = []
    for line in piece.splitlines():
        try:
            event = typed_json.decode(line, MigrationEvent)
            datetime.fromisoformat(event.at).astimezone()
        except (msgspec.DecodeError, ValueError, OverflowError):
            continue
        found.append(event)
    return found


def _silence(activity: Activity, now: float) -> float | None:
    """Return the seconds since a request of a puller was under way; None if there was none."""
    if activity.asking:
        return 0.0
    return None if activity.heard is None else now - activity.heard


def _transfer(progress: Progress | None, rate: float) -> Transfer | None:
    if progress is None or not progress.snapshot.frames:
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


def _time_of(path: str) -> str:
    """Return when a file was written, in RFC 3339, UTC; empty without one."""
    try:
        written = os.stat(path).st_mtime
    except FileNotFoundError:
        return ""
    return datetime.fromtimestamp(written, UTC).isoformat(timespec="seconds")
