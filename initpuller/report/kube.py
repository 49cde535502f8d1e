"""The cluster that we run in, asked through its API: the only file that knows ``kubernetes``.

Its typed calls are not used: their models take twice as long to import as all of a pull, and forty
MiB of the image. What we read and write is a Pod, Events and a ConfigMap, as JSON.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec
import structlog

from shared.errors import printable

if TYPE_CHECKING:
    from types import TracebackType

_log = structlog.get_logger("puller")

SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
"""Where a pod finds its token, its CA and its namespace (Kubernetes documentation, "Accessing the
Kubernetes API from a Pod")."""
CONTROLLER = "plexodus-puller"
"""By which Events are told from those of others."""
_SECONDS = 5.0
_PLEX = re.compile(r"(?:.*/)?[^/]*(?:pms|plex(?!odus))[^/]*")
_MAX_NOTE = 1024
"""Bytes of an Event's note (Kubernetes API reference, Event v1 events.k8s.io)."""


class ClusterError(Exception):
    """The API refused, or did not answer in time."""


@dataclass(frozen=True)
class OwnPod:
    """The pod that we run in."""

    namespace: str
    name: str
    uid: str
    images: tuple[str, ...]
    """Of its containers; not of its init containers."""


class Cluster:
    """The API, with the rights of our service account."""

    async def __aenter__(self) -> Self:
        """Find it.

        Raises:
            ClusterError: what a pod finds of its service account is not usable.
        """
        try:
            self._api = await asyncio.to_thread(_client)
            path = Path(SERVICE_ACCOUNT, "namespace")
            self._namespace = (await asyncio.to_thread(path.read_text)).strip()
        except Exception as error:
            raise ClusterError(_reason(error)) from error
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go of it."""
        await self._api.close()

    async def own_pod(self) -> OwnPod:
        """Ourselves: by ``POD_NAME``, or by the host name, which is a pod's own unless it is told.

        Raises:
            ClusterError: refused, or no answer.
        """
        name = os.environ.get("POD_NAME") or os.environ.get("HOSTNAME", "")
        pod = await self._ask("GET", f"/api/v1/namespaces/{self._namespace}/pods/{name}")
        images = tuple(str(each["image"]) for each in pod["spec"]["containers"])
        return OwnPod(self._namespace, name, pod["metadata"].get("uid", ""), images)

    async def emit(self, pod: OwnPod, reason: str, note: str, *, warns: bool) -> None:
        """An Event about ``pod`` (Kubernetes API reference, Event v1 events.k8s.io).

        Raises:
            ClusterError: refused, or no answer.
        """
        now = datetime.now(UTC)
        event = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": f"{pod.name}.{time.time_ns():x}"},
            "regarding": {
                "apiVersion": "v1",
                "kind": "Pod",
                "namespace": pod.namespace,
                "name": pod.name,
                "uid": pod.uid,
            },
            "type": "Warning" if warns else "Normal",
            "reason": reason,
            "action": "Pull",
            "note": note.encode()[:_MAX_NOTE].decode(errors="ignore"),
            "eventTime": now.isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "reportingController": CONTROLLER,
            "reportingInstance": pod.name,
        }
        path = f"/apis/events.k8s.io/v1/namespaces/{pod.namespace}/events"
        await self._ask("POST", path, event)

    async def keep(self, pod: OwnPod, configmap: str, data: dict[str, str]) -> None:
        """Have ``data`` in a ConfigMap that is there; its other keys stay.

        Raises:
            ClusterError: refused, not there, or no answer.
        """
        path = f"/api/v1/namespaces/{pod.namespace}/configmaps/{configmap}"
        await self._ask("PATCH", path, {"data": data}, "application/merge-patch+json")  # RFC 7396

    async def _ask(
        self, method: str, path: str, body: object = None, media_type: str = "application/json"
    ) -> dict[str, Any]:
        headers = {"Accept": "application/json", "Content-Type": media_type}
        try:
            async with asyncio.timeout(_SECONDS):
                request = await self._api.param_serialize(
                    method, path, header_params=headers, body=body, auth_settings=["BearerToken"]
                )
                response = await self._api.call_api(*request)
                content = await response.read()
            answer: dict[str, Any] = msgspec.json.decode(content)
        except Exception as error:
            raise ClusterError(_reason(error)) from error
        if response.status >= 300:  # noqa: PLR2004 - what is no success
            said = answer.get("message") or answer.get("reason") or ""
            raise ClusterError(printable(f"{method} {path}: {response.status} {said}"))
        return answer


def is_in_cluster() -> bool:
    """Whether we may ask the API at all."""
    return os.path.exists(os.path.join(SERVICE_ACCOUNT, "token"))


async def plex_image() -> str:
    """The image of the container that runs Plex in our own pod; empty if that cannot be told."""
    if not is_in_cluster():
        return ""
    try:
        async with Cluster() as cluster:
            pod = await cluster.own_pod()
    except ClusterError as error:
        _log.warning("the cluster does not tell which Plex the pod will run", reason=str(error))
        return ""
    return next((image for image in pod.images if _PLEX.fullmatch(image)), "")


def _client() -> Any:  # noqa: ANN401 - the library has no types
    # Takes longer to import than all else that a pull needs.
    from kubernetes.aio.client.api_client import ApiClient  # noqa: PLC0415
    from kubernetes.aio.client.configuration import Configuration  # noqa: PLC0415
    from kubernetes.aio.config.incluster_config import InClusterConfigLoader  # noqa: PLC0415

    configuration = Configuration()
    token, authority = (os.path.join(SERVICE_ACCOUNT, each) for each in ("token", "ca.crt"))
    InClusterConfigLoader(token, authority).load_and_set(configuration)
    return ApiClient(configuration)


def _reason(error: Exception) -> str:
    return printable(str(error).partition("\n")[0] or type(error).__name__)
