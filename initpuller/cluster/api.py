"""The cluster's API: the only module that imports ``kubernetes``.

Its typed calls are not used, because their models take twice as long to import as all of a pull,
and forty MiB of the image. We read and write a Pod, Events and a ConfigMap as JSON.
"""

from __future__ import annotations

import asyncio
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec
import structlog

from initpuller.cluster.background import aside
from shared.errors import printable

if TYPE_CHECKING:
    from datetime import datetime
    from types import TracebackType

_log = structlog.get_logger("puller")

SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
"""The folder with a pod's token, CA and namespace (Kubernetes documentation, "Accessing the
Kubernetes API from a Pod")."""
CONTROLLER = "plexodus-puller"
"""The name by which our Events differ from those of other controllers."""
_SECONDS = 5.0
_IMAGE_SECONDS = 5.0
"""Seconds to wait for the image: an older Plex on a newer database is worse than a short wait."""
_PLEX = re.compile(r"(?:.*/)?[^/]*(?:pms|plex(?!odus))[^/]*")
_MAX_NOTE = 1024
"""Bytes of an Event's note (Kubernetes API reference, Event v1 events.k8s.io)."""


class ClusterError(Exception):
    """The API refused a request, or did not answer it in time or with the requested object."""

    def __init__(self, reason: str, status: int = 0) -> None:
        super().__init__(reason)
        self.status = status
        """The status code of the response; 0 if there was none that can be read."""

    @property
    def is_final(self) -> bool:
        """Return whether the API would refuse the same request again."""
        return self.status // 100 == 4 and self.status not in _PASSING  # noqa: PLR2004


_PASSING = (408, 429)
"""Status codes of temporary refusals (RFC 9110 section 15.5.9, RFC 6585 section 4)."""
_CONFLICT = 409


class _Container(msgspec.Struct):
    image: str = ""


class _Metadata(msgspec.Struct):
    uid: str


class _PodSpec(msgspec.Struct):
    containers: list[_Container]


class _Pod(msgspec.Struct):
    """The fields of a Pod that we need (Kubernetes API reference, Pod v1)."""

    metadata: _Metadata
    spec: _PodSpec


class _Status(msgspec.Struct):
    """The reason of a refusal (Kubernetes API reference, Status v1)."""

    message: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Event:
    """Something that happened to a pod."""

    name: str
    """A unique name: an Event that is published twice exists once."""
    reason: str
    note: str
    when: datetime
    warns: bool


class Cluster:
    """The API, with the rights of the pod's service account."""

    async def __aenter__(self) -> Self:
        """Read the service account.

        Raises:
            ClusterError: the service account's files cannot be used.
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
        """Close the connections."""
        await self._api.close()

    async def own_uid(self) -> str:
        """Return the pod's UID, from ``POD_UID`` (the downward API) or from the API.

        Raises:
            ClusterError: the API refused, did not answer, or sent something else than a Pod.
        """
        return os.environ.get("POD_UID") or (await self._own_pod()).metadata.uid

    async def own_images(self) -> list[str]:
        """Return the images of the pod's containers, without its init containers.

        Raises:
            ClusterError: as for :meth:`own_uid`.
        """
        return [each.image for each in (await self._own_pod()).spec.containers]

    async def _own_pod(self) -> _Pod:
        path = f"/api/v1/namespaces/{self._namespace}/pods/{own_name()}"
        try:
            return msgspec.json.decode(await self._ask("GET", path), type=_Pod)
        except msgspec.MsgspecError as error:
            raise ClusterError(f"GET {path}: not a Pod ({_reason(error)})") from error

    async def emit(self, uid: str, event: Event) -> None:
        """Publish an Event of the pod (Kubernetes API reference, Event v1 events.k8s.io).

        Args:
            uid: the pod's UID.
            event: the event.

        Raises:
            ClusterError: the API refused, or did not answer.
        """
        told = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": event.name},
            "regarding": {
                "apiVersion": "v1",
                "kind": "Pod",
                "namespace": self._namespace,
                "name": own_name(),
                "uid": uid,
            },
            "type": "Warning" if event.warns else "Normal",
            "reason": event.reason,
            "action": "Pull",
            "note": event.note.encode()[:_MAX_NOTE].decode(errors="ignore"),
            "eventTime": event.when.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingController": CONTROLLER,
            "reportingInstance": own_name(),
        }
        try:
            await self._ask(
                "POST", f"/apis/events.k8s.io/v1/namespaces/{self._namespace}/events", told
            )
        except ClusterError as error:
            if error.status != _CONFLICT:
                raise

    async def keep(self, configmap: str, data: dict[str, str]) -> None:
        """Write ``data`` into an existing ConfigMap; its other keys stay.

        Raises:
            ClusterError: the API refused or did not answer, or there is no such ConfigMap.
        """
        path = f"/api/v1/namespaces/{self._namespace}/configmaps/{configmap}"
        await self._ask("PATCH", path, {"data": data}, "application/merge-patch+json")  # RFC 7396

    async def _ask(
        self, method: str, path: str, body: object = None, media_type: str = "application/json"
    ) -> bytes:
        headers = {"Accept": "application/json", "Content-Type": media_type}
        try:
            async with asyncio.timeout(_SECONDS):
                request = await self._api.param_serialize(
                    method, path, header_params=headers, body=body, auth_settings=["BearerToken"]
                )
                response = await self._api.call_api(*request)
                content: bytes = await response.read()
        except Exception as error:
            raise ClusterError(_reason(error)) from error
        if response.status // 100 != 2:  # noqa: PLR2004 - what is no success
            text = printable(f"{method} {path}: {response.status} {_why(content)}")
            raise ClusterError(text, response.status)
        return content


def own_name() -> str:
    """Return the pod's name: ``POD_NAME``, or the host name, which is the pod's name by default."""
    return os.environ.get("POD_NAME") or os.environ.get("HOSTNAME", "")


def token_path() -> str:
    """Return the path of the service account's token."""
    return os.path.join(SERVICE_ACCOUNT, "token")


def is_in_cluster() -> bool:
    """Return whether this is a container of a pod: each has the API's address."""
    return "KUBERNETES_SERVICE_HOST" in os.environ


def may_ask() -> bool:
    """Return whether there is a token for the API."""
    return os.path.exists(token_path())


async def plex_image() -> str:
    """Return the image of Plex's container in the puller's own pod; empty if unknown.

    The pull waits for it, so the API gets only a few seconds.
    """
    if not may_ask():
        return ""
    asked = asyncio.wrap_future(aside(_plex_image))
    try:
        return await asyncio.wait_for(asked, _IMAGE_SECONDS)
    except Exception as error:  # noqa: BLE001 - a pull does not depend on the API
        reason = str(error) or f"no answer within {_IMAGE_SECONDS:.0f} s"
        _log.warning("cannot read from the cluster which Plex the pod will run", reason=reason)
        return ""


async def _plex_image() -> str:
    async with Cluster() as cluster:
        images = await cluster.own_images()
    return next((image for image in images if _PLEX.fullmatch(image)), "")


def _client() -> Any:  # noqa: ANN401 - the library has no types
    # This import takes longer than all others of a pull.
    from kubernetes.aio.client.api_client import ApiClient  # noqa: PLC0415
    from kubernetes.aio.client.configuration import Configuration  # noqa: PLC0415
    from kubernetes.aio.config.incluster_config import InClusterConfigLoader  # noqa: PLC0415

    configuration = Configuration()
    authority = os.path.join(SERVICE_ACCOUNT, "ca.crt")
    InClusterConfigLoader(token_path(), authority).load_and_set(configuration)
    return ApiClient(configuration)


def _why(content: bytes) -> str:
    try:
        status = msgspec.json.decode(content, type=_Status)
    except msgspec.MsgspecError:
        return ""
    return status.message or status.reason


def _reason(error: Exception) -> str:
    return printable(str(error).partition("\n")[0] or type(error).__name__)
