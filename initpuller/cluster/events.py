"""A pull's milestones as Events on the puller's own pod, and its progress in a ConfigMap.

In threads of their own, which nobody waits for but a moment at the end: whatever the API does, the
pull continues. Refused reports are sent again, until then.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import wait
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self

import msgspec
import structlog

from initpuller.cluster import api
from initpuller.cluster.api import ClusterError, Event, own_name
from shared.checks import duration, size
from shared.timestamps import timestamp

if TYPE_CHECKING:
    from concurrent.futures import Future

    from initpuller.report.progress import PullProgress, Standing

_log = structlog.get_logger("puller")

_GLANCE = 0.25
"""Seconds between two checks for news."""
_KEPT_SECONDS = 10.0
_PROGRESS_SECONDS = 30.0
_PAUSE = 10.0
"""Seconds until a refused request is repeated, while the pull runs."""
_LAST_SECONDS = 2.0
"""Seconds for the last news, if the API answers: Plex's container starts only after that."""


class ClusterReport:
    """Reports of one pull, and of a failure inside it. Outside a cluster nothing is reported.

    Args:
        progress: progress of the pull.
        configmap: the name of the one that shows it; empty: none does.
    """

    def __init__(self, progress: PullProgress, configmap: str) -> None:
        self._progress = progress
        self._configmap = configmap
        self._is_over = threading.Event()
        self._ends = float("inf")
        self._loaded: Future[object] | None = None
        """The client of the API; None before the first report."""
        self._running: list[Future[None]] = []
        self._has_warned = threading.Lock()
        """Held from the first warning on: there is only one."""

    def __enter__(self) -> Self:
        """Wait for the first milestone: forks happen before it, and threads come after."""
        if api.may_ask():
            self._progress.heard = self._begin
        elif self._configmap or api.is_in_cluster():
            self._warn_once(f"there is no service account's token at {api.token_path()}")
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        """Send the reports that are still unsent."""
        if isinstance(error, Exception):
            self._progress.failed(str(error))
        self._progress.heard = lambda: None
        if self._loaded is not None:
            wait([self._loaded])  # which may take as long as the time for the last reports
        self._ends = time.monotonic() + _LAST_SECONDS
        self._is_over.set()
        wait(self._running, _LAST_SECONDS)

    def _begin(self) -> None:
        self._progress.heard = lambda: None
        reports = [self._show] if self._configmap else []
        if not self._progress.is_earlier:
            reports.append(self._tell)
        if reports:
            self._loaded = api.aside(api.load)
            self._running = [api.aside(each) for each in reports]

    def _tell(self) -> None:
        """Publish each milestone as an Event, and an Event of the progress every 30 s."""
        uid = ""
        told, said, first = 0, time.monotonic(), time.time_ns()
        while True:
            is_over = self._is_over.is_set()
            is_news = told < len(self._progress.milestones)
            if is_over and not is_news:
                return
            try:
                uid = uid or api.own_uid()
                if is_news:
                    api.emit(uid, self._milestone(told, first))
                elif time.monotonic() - said >= _PROGRESS_SECONDS:
                    said = time.monotonic()
                    api.emit(uid, self._how_far())
            except ClusterError as error:
                self._warn_once(str(error))
                if not uid or not error.is_final:
                    if not self._is_repeated(error):
                        return
                    continue
            if is_news:
                told, said = told + 1, time.monotonic()
            else:
                time.sleep(_GLANCE)

    def _show(self) -> None:
        """Write the progress to the ConfigMap, after each milestone and every few seconds."""
        shown, kept = 0, time.monotonic()
        while True:
            is_over, reached = self._is_over.is_set(), len(self._progress.milestones)
            if is_over or reached > shown or time.monotonic() - kept >= _KEPT_SECONDS:
                try:
                    api.keep(self._configmap, self._status())
                except ClusterError as error:
                    self._warn_once(str(error))
                    if not self._is_repeated(error):
                        return
                    continue
                shown, kept = reached, time.monotonic()
            if is_over:
                return
            time.sleep(_GLANCE)

    def _is_repeated(self, error: ClusterError) -> bool:
        """Wait, and return whether to repeat what the API refused.

        This is not the retry policy for the agent: nothing waits for these reports, so they are
        repeated at one pace for as long as the pull takes, and then for :data:`_LAST_SECONDS`.
        """
        self._is_over.wait(_PAUSE)
        if self._is_over.is_set() and (error.is_final or not error.status):
            return False
        time.sleep(_GLANCE)
        return time.monotonic() < self._ends

    def _milestone(self, index: int, first: int) -> Event:
        reached, about, when = self._progress.milestones[index]
        warns = reached in ("Failed", "Skipped")
        return Event(f"{own_name()}.{first + index:x}", reached, about, when, warns)

    def _how_far(self) -> Event:
        words = _in_words(self._progress.standing())
        return Event(
            f"{own_name()}.{time.time_ns():x}", "Progress", words, datetime.now(UTC), warns=False
        )

    def _status(self) -> dict[str, str]:
        found = msgspec.to_builtins(self._progress.standing())
        if self._progress.is_earlier:  # those of the run that moved it stay
            del found["bytes"], found["total_bytes"]
        data = {key: "" if value is None else str(value) for key, value in found.items()}
        return data | {"pod": own_name(), "updated": timestamp()}

    def _warn_once(self, reason: str) -> None:
        if self._has_warned.acquire(blocking=False):
            _log.warning("cannot publish Events or status", reason=reason)


def _in_words(standing: Standing) -> str:
    words = f"{standing.phase}: {standing.percent} %, {size(standing.bytes)} of"
    words += f" {size(standing.total_bytes)}, {size(standing.bytes_per_second)}/s"
    if standing.seconds_left is None:
        return words
    return f"{words}, {duration(standing.seconds_left)} left"
