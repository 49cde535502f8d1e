"""Each state of the pods that a real API server reports: none is missed between two requests."""

from __future__ import annotations

import json
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
        return {each["object"]["metadata"]["name"]: each["object"] for each in self.events()}

    def most(self) -> int:
        """Return the most pods that were there at once without having ended, until now."""
        assert self._process.poll() is None, "the watch ended before"
        active: set[str] = set()
        most = 0
        for event in self.events():
            pod = event["object"]
            name = pod["metadata"]["name"]
            if event["type"] == "DELETED" or pod["status"].get("phase") in _ENDED:
                active.discard(name)
            else:
                active.add(name)
            most = max(most, len(active))
        return most

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield each change of a pod so far, as the watch of the API reports it."""
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
