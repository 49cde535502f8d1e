"""The progress of a pull: a bar on a terminal, a log line every ten seconds everywhere else.

It reaches 100 % when the receipt is written, and not before.
"""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec
import structlog
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

if TYPE_CHECKING:
    from collections.abc import Callable

_log = structlog.get_logger("puller")
_INTERVAL = 10.0
"""Seconds between two log lines."""
_ALMOST = 99


Reached = Literal["Started", "Verified", "Committed", "Published", "Skipped", "Failed"]
"""The milestones of a pull, as the cluster's Events name them."""


class Milestone(NamedTuple):
    """A milestone of a pull, for people."""

    reached: Reached
    about: str
    when: datetime


class Standing(msgspec.Struct, frozen=True):
    """The progress of a pull for programs: in bytes of the archive, entries and seconds."""

    phase: str
    percent: int
    bytes: int
    total_bytes: int
    entries: int
    total_entries: int
    bytes_per_second: int
    seconds_left: int | None
    snapshot: str
    error: str


class PullProgress:
    """Phase, bytes, entries, rate and remaining time of one pull.

    The pull updates it; other threads may read it.
    """

    def __init__(self) -> None:
        self.milestones: list[Milestone] = []
        """The milestones that were reached, in order; none is ever removed."""
        self.down: float | None = None
        """Seconds that Plex was stopped until the library was there; None if it was not."""
        self.is_earlier = False
        """Whether an earlier run has published: this one moves nothing."""
        self.heard: Callable[[], None] = lambda: None
        """Called after each milestone, and after :meth:`earlier`."""
        self._snapshot = self._error = ""
        self._bytes = self._total_bytes = 0
        self._entries = self._total_entries = 0
        self._phase = "starting"
        self._started = self._last = self._logged = time.monotonic()
        self._fetched = 0
        self.bar = Progress(
            TextColumn("{task.description:<12}"),
            BarColumn(),
            TaskProgressColumn(),
            DownloadColumn(binary_units=True),
            TextColumn("{task.fields[entries]} entries"),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )
        """A context manager that shows it on a terminal, and nothing elsewhere."""
        self._task = self.bar.add_task(self._phase, total=None, entries="0", rate="")

    def phase(self, name: str) -> None:
        """Enter a phase."""
        self._phase = name
        self.bar.update(self._task, description=name)
        if self.bar.disable:
            self._log()

    def expect(self, total_bytes: int, total_entries: int, have_bytes: int, have: int) -> None:
        """Set the totals, and how much of them is on the volume already."""
        self._total_bytes, self._total_entries = total_bytes, total_entries
        self._bytes, self._entries = have_bytes, have
        self._fetched, self._started = 0, time.monotonic()
        self._last = self._started
        # A larger total: the bar is full only when the receipt is written.
        self.bar.update(self._task, total=total_bytes + max(1, total_bytes // 100))
        self._show()

    def advance(self, more_bytes: int, more_entries: int) -> None:
        """Add bytes and entries that are on the volume now."""
        self._bytes += more_bytes
        self._entries += more_entries
        self._fetched += more_bytes
        self._last = time.monotonic()
        self._show()

    def of(self, snapshot: str) -> None:
        """Set the snapshot that is transferred; log lines name it from now on."""
        self._snapshot = snapshot
        structlog.contextvars.bind_contextvars(snapshot=snapshot)

    def reached(self, milestone: Reached, about: str) -> None:
        """Report a milestone."""
        self.milestones.append(Milestone(milestone, about, datetime.now(UTC)))
        self.heard()

    def skipped(self) -> None:
        """Report that nothing was done: Plex will start on a library that nobody has verified."""
        self._phase = "skipped"
        self.reached("Skipped", "A library that is not ours is there already: nothing was done")

    def earlier(self, snapshot: str, entries: int) -> None:
        """Report what an earlier run has published. That is no milestone of this run."""
        self._phase, self._snapshot, self.is_earlier = "done", snapshot, True
        self._entries = self._total_entries = entries
        self.heard()

    def failed(self, reason: str) -> None:
        """Report that the pull has failed."""
        self._phase, self._error = "failed", reason
        self.reached("Failed", reason)

    def standing(self) -> Standing:
        """Return the progress."""
        rate = self._rate()
        left = (self._total_bytes - self._bytes) / rate if rate else None
        percent = _ALMOST * self._bytes // self._total_bytes if self._total_bytes else 0
        return Standing(
            phase=self._phase,
            percent=100 if self._phase == "done" else percent,
            bytes=self._bytes,
            total_bytes=self._total_bytes,
            entries=self._entries,
            total_entries=self._total_entries,
            bytes_per_second=round(rate),
            seconds_left=None if left is None else round(left),
            snapshot=self._snapshot,
            error=self._error,
        )

    def done(self) -> None:
        """Report that the library is published and the receipt written."""
        self._phase = "done"
        total = max(1, self._total_bytes)
        self.bar.update(self._task, description="done", total=total)
        self._update_bar(total, self._total_entries)
        self.bar.refresh()
        if self.bar.disable:
            self._log()

    def _show(self) -> None:
        self._update_bar(self._bytes, self._entries)
        if self.bar.disable and time.monotonic() - self._logged >= _INTERVAL:
            self._log()

    def _update_bar(self, completed: int, entries: int) -> None:
        rate = f"{self._rate() / 2**20:.1f} MiB/s"
        self.bar.update(self._task, completed=completed, entries=str(entries), rate=rate)

    def _rate(self) -> float:
        """Return bytes a second of this run, from its first frame to its last."""
        return self._fetched / max(self._last - self._started, 0.001)

    def _log(self) -> None:
        self._logged = time.monotonic()
        found = msgspec.structs.asdict(self.standing())
        _log.info("progress", **{key: value for key, value in found.items() if value != ""})
