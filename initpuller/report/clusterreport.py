"""A pull's milestones as Events on our own pod, and where it stands in a ConfigMap.

In a thread of its own, which nobody waits for but a few seconds at the end: whatever the API does,
the pull goes on.
"""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self

import msgspec
import structlog

from initpuller.report.kube import Cluster, ClusterError, OwnPod, is_in_cluster
from shared.checks import duration, size

if TYPE_CHECKING:
    from types import TracebackType

    from initpuller.report.progress import PullProgress, Standing

_log = structlog.get_logger("puller")

_GLANCE = 0.25
"""Seconds between two looks for news."""
_KEPT_SECONDS = 10.0
_PROGRESS_SECONDS = 30.0
_LAST_SECONDS = 6.0
"""That the last news may take."""


class ClusterReport:
    """Reports of one pull; outside of a cluster, nothing.

    Args:
        progress: where the pull stands.
        configmap: the name of the one that shows it; empty: none does.
    """

    def __init__(self, progress: PullProgress, configmap: str) -> None:
        self._progress = progress
        self._configmap = configmap
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._told = 0
        self._kept = self._said = time.monotonic()
        self._refused: set[str] = set()

    def __enter__(self) -> Self:
        """Begin with the first milestone: before it, other processes are still to be forked."""
        if is_in_cluster():
            self._progress.heard = self._begin
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Tell what has not been told yet."""
        self._progress.heard = lambda: None
        self._is_over.set()
        if self._thread.is_alive():
            self._thread.join(_LAST_SECONDS)

    def _begin(self) -> None:
        self._progress.heard = lambda: None
        self._thread.start()

    async def _run(self) -> None:
        try:
            async with Cluster() as cluster:
                await self._report(cluster, await cluster.own_pod())
        except ClusterError as error:
            _log.warning("the cluster is not told of the pull", reason=str(error))

    async def _report(self, cluster: Cluster, pod: OwnPod) -> None:
        while True:
            is_over = self._is_over.is_set()
            is_news = await self._tell(cluster, pod)
            now = time.monotonic()
            if is_news or is_over or now - self._kept >= _KEPT_SECONDS:
                self._kept = now
                await self._keep(cluster, pod)
            if is_over:
                return
            await asyncio.sleep(_GLANCE)

    async def _tell(self, cluster: Cluster, pod: OwnPod) -> bool:
        """Events; whether something was reached since the last look."""
        milestones = self._progress.milestones[self._told :]
        for reached, about in milestones:
            await self._event(cluster, pod, reached, about)
        self._told += len(milestones)
        if milestones:
            self._said = time.monotonic()
        elif time.monotonic() - self._said >= _PROGRESS_SECONDS:
            self._said = time.monotonic()
            await self._event(cluster, pod, "Progress", _in_words(self._progress.standing()))
        return bool(milestones)

    async def _event(self, cluster: Cluster, pod: OwnPod, reason: str, note: str) -> None:
        try:
            await cluster.emit(pod, reason, note, warns=reason == "Failed")
        except ClusterError as error:
            self._say_once("Events", error)

    async def _keep(self, cluster: Cluster, pod: OwnPod) -> None:
        if not self._configmap:
            return
        found = msgspec.to_builtins(self._progress.standing())
        data = {key: "" if value is None else str(value) for key, value in found.items()}
        data |= {"pod": pod.name, "updated": datetime.now(UTC).isoformat(timespec="seconds")}
        try:
            await cluster.keep(pod, self._configmap, data)
        except ClusterError as error:
            self._say_once("ConfigMap", error)

    def _say_once(self, what: str, error: ClusterError) -> None:
        if what not in self._refused:
            self._refused.add(what)
            _log.warning(f"the cluster takes no {what}", reason=str(error))


def _in_words(standing: Standing) -> str:
    words = f"{standing.phase}: {standing.percent} %, {size(standing.bytes)} of"
    words += f" {size(standing.total_bytes)}, {size(standing.bytes_per_second)}/s"
    if standing.seconds_left is None:
        return words
    return f"{words}, {duration(standing.seconds_left)} left"
