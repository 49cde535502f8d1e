"""The story of the move so far: what the lines of the migration log have reached, line by line."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from agent.page.timeline import AFTER_COPY, Milestone

if TYPE_CHECKING:
    from agent.host.migration_log import MigrationEvent
    from shared.wire.protocol import CutoverPhase, CutoverStanding

_REACHED = {
    "pass": (Milestone.COPIED,),
    "stopped": (Milestone.STOPPED,),
    "unchanged": (Milestone.CHANGES,),
    "committed": (Milestone.CHANGES, Milestone.VERIFIED, Milestone.COMMITTED),
    "done": (Milestone.VERIFIED, Milestone.PUBLISHED),
    "started": (Milestone.STARTED,),
}
"""What an event reaches."""
_LATEST = (Milestone.COPIED, Milestone.PUBLISHED)
"""Steps that a move may make several times. The last time counts."""
_LOST = ("stop", "undone", "record")
"""Events after which only the copy is left of the steps of an attempt."""
_TROUBLE = ("failed", "refused", "attention", "undo")
_MENDED = ("pull", "done", "committed", "migrated")
_IN_CLUSTER = ("started", "migrated", "attention")
_NEEDED: dict[CutoverPhase, tuple[Milestone, ...]] = {
    "stopped": (Milestone.STOPPED,),
    "committing": (Milestone.STOPPED, Milestone.CHANGES, Milestone.VERIFIED),
    "committed": (
        *(Milestone.STOPPED, Milestone.CHANGES, Milestone.VERIFIED),
        Milestone.COMMITTED,
    ),
}
"""Steps that are done in a phase of the cutover, whatever the log says: lines may be lost."""


class MoveStory:
    """The story; each line of the log is added once, in its order."""

    def __init__(self) -> None:
        self._reached: dict[Milestone, tuple[str, str]] = {}
        self.trouble: MigrationEvent | None = None
        """What somebody has to look at, if nothing has gone well since."""
        self.in_cluster: MigrationEvent | None = None
        """What the sidecar has last said of Plex in its pod, since the last publication."""
        self.was_undone_published = False
        """A library is on a volume whose move was undone: its Plex must not run."""
        self._stop, self._end, self._published = "", "", ""

    def add(self, event: MigrationEvent) -> None:
        """Take the next line into account."""
        name = event.event
        if name in _TROUBLE:
            self.trouble = event
        elif name in _MENDED or (name == "undone" and self._is_trouble("undo")):
            self.trouble = None
        if name in _LOST:
            self.was_undone_published |= name != "stop" and Milestone.PUBLISHED in self._reached
            self._reached = {
                each: at for each, at in self._reached.items() if each not in AFTER_COPY
            }
        self._note_times(event)
        if name == "started" and Milestone.PUBLISHED not in self._reached:
            return
        if name == "done":
            self.in_cluster, self.was_undone_published = None, False
        for milestone in self._steps(name):
            if milestone not in self._reached or milestone in _LATEST:
                self._reached[milestone] = event.at, event.about

    def reached(self, standing: CutoverStanding) -> dict[Milestone, tuple[str, str]]:
        """Return time and words of each step that is done, which agree with the record."""
        reached = dict(self._reached)
        needed = _NEEDED.get(standing.phase, ())
        for milestone in needed:
            reached.setdefault(milestone, (standing.since, ""))
        if standing.phase in ("idle", "undoing") and Milestone.COMMITTED in reached:
            reached = {each: at for each, at in reached.items() if each not in AFTER_COPY}
        if standing.phase == "stopping":
            reached = {each: at for each, at in reached.items() if each not in AFTER_COPY}
        return reached

    def downtime(self, now: datetime) -> tuple[float, bool] | None:
        """Return for how long the last attempt had Plex stopped, and whether that is over.

        None if nothing was stopped. Without a word of the sidecar, it ends with the publication.
        """
        if not self._stop:
            return None
        end = self._end or self._published
        until = datetime.fromisoformat(end) if end else now
        return max(0.0, (until - datetime.fromisoformat(self._stop)).total_seconds()), bool(end)

    def _note_times(self, event: MigrationEvent) -> None:
        if event.event == "stop":
            self._stop, self._end, self._published = event.at, "", ""
        elif event.event in ("started", "undone", "record") and not self._end:
            self._end = event.at
        elif event.event == "done":
            self._published = event.at
        if event.event in _IN_CLUSTER:
            self.in_cluster = event

    def _steps(self, name: str) -> tuple[Milestone, ...]:
        if name == "pass" and Milestone.STOPPED in self._reached:
            return (Milestone.CHANGES,)  # a pass while Plex is stopped is not a live one
        return _REACHED.get(name, ())

    def _is_trouble(self, name: str) -> bool:
        return self.trouble is not None and self.trouble.event == name


def utc_now() -> datetime:
    """Return the time of this machine's clock."""
    return datetime.now(UTC)
