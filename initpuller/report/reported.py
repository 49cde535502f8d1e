"""A pull, while everybody who wants to know can look."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import msgspec

from initpuller.report.clusterreport import ClusterReport
from initpuller.report.metrics import pull_metrics
from initpuller.report.probes import Probes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from initpuller.report.progress import PullProgress


@contextmanager
def reported(
    progress: PullProgress, listen: tuple[str, int] | None, configmap: str
) -> Iterator[None]:
    """Inside, ``progress`` shows in the cluster and on a port; what goes wrong inside, too.

    Args:
        progress: of the pull inside.
        listen: host and port of the probes; None: no port.
        configmap: see :class:`ClusterReport`.

    Raises:
        ConfigurationError: it cannot listen there.
    """
    with ExitStack() as stack:
        if listen is not None:
            stack.enter_context(
                Probes(
                    listen,
                    lambda: progress.standing().phase == "done",
                    lambda: msgspec.json.encode(progress.standing()),
                    lambda: pull_metrics(progress.standing()),
                )
            )
        stack.enter_context(ClusterReport(progress, configmap))
        try:
            yield
        except Exception as error:
            progress.failed(str(error))
            raise
