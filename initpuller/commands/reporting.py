"""Progress of a pull: to the cluster, and on a port."""

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
    """Report ``progress``, and a failure of the block, to the cluster.

    Args:
        progress: progress of the pull in the block.
        configmap: name of the ConfigMap; see :class:`ClusterReport`.
    """
    with ClusterReport(progress, configmap):
        try:
            yield
        except Exception as error:
            progress.failed(str(error))
            raise


def probes(progress: PullProgress, listen: tuple[str, int]) -> Probes:
    """Return a server that shows ``progress`` at the address ``listen``.

    Raises:
        ConfigurationError: the server cannot listen there.
    """
    return Probes(
        listen,
        lambda: progress.standing().phase == "done",
        lambda: msgspec.json.encode(progress.standing()),
        lambda: pull_metrics(progress.standing()),
    )
