"""A pull, while everybody who wants to know can look."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from initpuller.cluster.events import ClusterReport
from initpuller.report.metrics import pull_metrics
from initpuller.report.probes import Probes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from initpuller.report.progress import PullProgress


@contextmanager
def reported(progress: PullProgress, configmap: str) -> Iterator[None]:
    """Inside, ``progress`` shows in the cluster; what goes wrong inside, too.

    Args:
        progress: of the pull inside.
        configmap: see :class:`ClusterReport`.
    """
    with ClusterReport(progress, configmap):
        try:
            yield
        except Exception as error:
            progress.failed(str(error))
            raise


def probes(progress: PullProgress, listen: tuple[str, int]) -> Probes:
    """What shows ``progress`` on a port.

    Raises:
        ConfigurationError: it cannot listen there.
    """
    return Probes(
        listen,
        lambda: progress.standing().phase == "done",
        lambda: msgspec.json.encode(progress.standing()),
        lambda: pull_metrics(progress.standing()),
    )
