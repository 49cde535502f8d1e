"""Each state of the pods that a real API server reports: none is missed between two requests."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from rig.cluster.cluster import TOOLS, start

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

    from rig.cluster.cluster import Cluster

_CHANGES = ("ADDED", "MODIFIED", "DELETED")
_ENDED = ("Succeeded", "Failed")


class PodWatch:
    """The events that a watch of the API has reported until now."""

    def __init__(self, log: Path, process: subprocess.Popen[bytes]) -> None:
        self._log = log
        self._process = process

    def pods(self) -> dict[str, dict[str, Any]]:
        """Return the last state of each pod, also of those that are gone, by its name."""
        return {each["object"]["metadata"]["name"]: each["object"] for each in self._events()}

    def most(self) -> int:
        """Return the most pods that were there at once without having ended, until now."""
        return max(map(len, self._active()), default=0)

    def most_on_a_node(self) -> int:
        """Return the most of them that one node had at once."""
        nodes = (
            Counter(node for pod in pods.values() if (node := pod["spec"].get("nodeName")))
            for pods in self._active()
        )
        return max((count for each in nodes for count in each.values()), default=0)

    def _active(self) -> Iterator[dict[str, dict[str, Any]]]:
        """Yield the pods that are there and have not ended, after each change."""
        assert self._process.poll() is None, "the watch ended before"
        active: dict[str, dict[str, Any]] = {}
        for event in self._events():
            pod = event["object"]
            name = pod["metadata"]["name"]
            if event["type"] == "DELETED" or pod["status"].get("phase") in _ENDED:
                active.pop(name, None)
            else:
                active[name] = pod
            yield active

    def _events(self) -> Iterator[dict[str, Any]]:
        for line in self._log.read_bytes().split(b"\n"):
            try:
                event = json.loads(line)
            except json.JSONDecodeError:  # the last line may still be on its way
                return
            assert event["type"] in _CHANGES, event
            yield event


@contextmanager
def watched_pods(cluster: Cluster, namespace: str) -> Iterator[PodWatch]:
    """Watch the pods of a namespace, which has none yet.

    Without a version to start at, the API server may refuse a watch that its cache lags behind.
    """
    log = cluster.folder / "pods.jsonl"
    path = f"/api/v1/namespaces/{namespace}/pods?watch=1&resourceVersion=0&timeoutSeconds=3600"
    config = cluster.environment()["KUBECONFIG"]
    with ExitStack() as stack:
        command = [TOOLS / "bin" / "kubectl", "--kubeconfig", config, "get", "--raw", path]
        yield PodWatch(log, start(stack, log, command))
