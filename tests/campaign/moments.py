"""The progress of a run, seen from outside, and whether the moment of a fault has come."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, assert_never

from campaign.story import Moment, When
from campaign.volume import Kind

if TYPE_CHECKING:
    from campaign.site import Site

_REQUEST = b'"event": "request"'


class Progress:
    """Counts events since the start of a run, or since the last fault.

    Args:
        site: where the run takes place.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self._log_end = 0
        self._requests = self._journal = self._journal_seen = 0
        self._stops = 0
        self._began = 0.0
        self._reached: float | None = None
        self.restart()

    def restart(self) -> None:
        """Count from here."""
        self._take()
        self._requests = self._journal = 0
        self._stops = self._count_stops()
        self._began, self._reached = time.monotonic(), None

    def has_come(self, moment: Moment) -> bool:
        """Return whether the moment is now, or has passed."""
        self._take()
        now = time.monotonic()
        if self._reached is None and self._is_reached(moment):
            self._reached = now
        return self._reached is not None and now - self._reached >= moment.milliseconds / 1000

    def _is_reached(self, moment: Moment) -> bool:
        site = self._site
        match moment.when:
            case When.REQUESTS:
                return self._requests >= moment.count
            case When.JOURNAL:
                return self._journal >= moment.count
            case When.START:
                return True
            case When.STOPPED:
                return self._count_stops() > self._stops
            case When.FENCED:
                return site.vm.has_fence()
            case When.PUBLISHED:
                return site.volume.kind() is Kind.MOVED
            case _:
                assert_never(moment.when)

    def _take(self) -> None:
        """Count what has been written since the last call."""
        with self._site.vm.agent.log.open("rb") as log:
            log.seek(self._log_end)
            new = log.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._log_end += len(whole)
        self._requests += whole.count(_REQUEST)
        lines = self._site.volume.journal_lines()
        self._journal += max(0, lines - self._journal_seen)
        self._journal_seen = lines

    def _count_stops(self) -> int:
        return self._site.vm.plex.story.count("stop")
