"""The series of a fleet in one hour, as a Prometheus has scraped them.

They are the puller's own metrics, with the labels that the PodMonitor adds, and those of
kube-state-metrics for Jobs and pods.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from initpuller.report.metrics import metrics
from initpuller.report.progress import Standing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

RELEASE, NAMESPACE = "home", "media"
HOUR, STEP = 3600, 30
START = 1_800_000_000
MIB = 1 << 20


@dataclass(frozen=True)
class Server:
    """One migration, as Prometheus sees it."""

    name: str
    rate: int = 0
    """Bytes a second of its puller; no puller runs at 0."""
    stalls: int = HOUR
    """Second from which on nothing arrives."""
    done: int | None = None
    """Second of its Job's end."""
    failed: int | None = None
    is_pending: bool = False
    """Whether its pod has a node and does not start."""
    fails_every: int = 0
    """Seconds between two pods that fail; 0 if none does."""
    release: str = RELEASE
    namespace: str = NAMESPACE

    @property
    def job(self) -> str:
        """Return the name of its Job, as the chart makes it."""
        return f"{self.release}-{self.name}-done-0a1b2c"

    @property
    def pod(self) -> str:
        """Return the name of its Job's pod."""
        return f"{self.job}-x2b4d"

    def is_active(self, second: int) -> bool:
        """Return whether its Job has a pod."""
        ends = [end for end in (self.done, self.failed) if end is not None]
        return bool(self.rate or self.is_pending) and all(second < end for end in ends)


FLEET = (
    Server("anna", rate=MIB),
    Server("ben-and-co", rate=2 * MIB, stalls=2400),
    Server("chris", rate=4 * MIB, done=2100),
    Server("dora", rate=MIB, failed=3000, fails_every=500),
    Server("eve", is_pending=True),
    Server("fred", rate=8 * MIB, done=3300),
    Server("gina"),
    Server("hugo", fails_every=400),
)
"""Gina waits for a place, and hugo for his next try."""
NEIGHBORS = (
    Server("anna", rate=16 * MIB, release="home-2"),
    Server("ben-and-co", rate=MIB, stalls=600, release="home-2"),
    Server("chris", rate=MIB, done=3000, release="home-2"),
    Server("dora", failed=3000, fails_every=500, release="home-2"),
    Server("eve", is_pending=True, release="home-2"),
    Server("anna", rate=32 * MIB, stalls=600, namespace="attic"),
    Server("chris", rate=32 * MIB, done=3000, namespace="attic"),
    Server("dora", failed=3000, fails_every=500, namespace="attic"),
    Server("eve", is_pending=True, namespace="attic"),
)
"""Those of a release whose name begins with ours, and of ours in another namespace."""


def labels_of(**labels: str) -> str:
    """Return labels in the format of a series' name."""
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels.items()) + "}"


def series(servers: Sequence[Server] = FLEET + NEIGHBORS) -> dict[str, list[float | None]]:
    """Return each series with its values, one a step; None where it has no sample."""
    steps = range(0, HOUR + STEP, STEP)
    found: dict[str, list[float | None]] = {}
    for number, second in enumerate(steps):
        for server in servers:
            samples = [*_of_cluster(server, second)]
            if server.rate and server.is_active(second):
                samples += _of_puller(server, second)
            for name, value in samples:
                found.setdefault(name, [None] * len(steps))[number] = value
    return found


def _of_puller(server: Server, second: int) -> Iterator[tuple[str, float]]:
    """Yield the samples of a scrape of its puller, with the labels of the PodMonitor."""
    arrived = server.rate * min(second, server.stalls)
    pull = Standing("transferring", 1, arrived, HOUR * server.rate, 1, 9, server.rate, 1, "", "")
    own = labels_of(
        namespace=server.namespace, pod=server.pod,
        migration=server.name, release=server.release, fleet="f",
    )  # fmt: skip
    for line in metrics("transferring", pull).decode().splitlines():
        found = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
        if found is not None:
            inside = ",".join(filter(None, (found[2], own[1:-1])))
            yield f"{found[1]}{{{inside}}}", float(found[3])


def _of_cluster(server: Server, second: int) -> Iterator[tuple[str, float]]:
    """Yield the samples of kube-state-metrics for its Job and its pod."""
    job = {"namespace": server.namespace, "job_name": server.job}
    yield f"kube_job_created{labels_of(**job)}", float(START)
    yield f"kube_job_status_active{labels_of(**job)}", float(server.is_active(second))
    last = second if server.failed is None else min(second, server.failed)
    failures = last // server.fails_every if server.fails_every else 0
    yield f"kube_job_status_failed{labels_of(**job)}", float(failures)
    for name, end in (("complete", server.done), ("failed", server.failed)):
        for condition in ("true", "false", "unknown") if end is not None and second >= end else ():
            value = float(condition == "true")
            yield f"kube_job_{name}{labels_of(**job, condition=condition)}", value
    if server.done is not None and second >= server.done:
        completed = f"kube_job_status_completion_time{labels_of(**job)}"
        yield completed, float(START + server.done)
    pod = {"namespace": server.namespace, "pod": server.pod}
    if server.is_active(second):
        for phase, holds in (("Pending", server.is_pending), ("Running", not server.is_pending)):
            yield f"kube_pod_status_phase{labels_of(**pod, phase=phase)}", float(holds)
        yield f"kube_pod_status_scheduled{labels_of(**pod, condition='true')}", 1.0
