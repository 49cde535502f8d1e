"""The cluster's API: the only module that imports ``kubernetes``.

Its typed calls are not used, because their models take twice as long to import as all of a pull,
and forty MiB of the image. We read and write a Pod, Events and a ConfigMap as JSON.
"""

from __future__ import annotations

import asyncio
import os
import re
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import structlog

from shared import typed_json
from shared.errors import printable
from shared.wire.network_errors import failure_reason

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

T = TypeVar("T")

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
_PASSING = (408, 429)
"""Status codes of temporary refusals (RFC 9110 section 15.5.9, RFC 6585 section 4)."""
_CONFLICT = 409


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


def own_uid() -> str:
    """Return the pod's UID, from ``POD_UID`` (the downward API) or from the API.

    Like all requests, it raises :class:`ClusterError`.
    """
    return os.environ.get("POD_UID") or _own_pod().metadata.uid


def emit(uid: str, event: Event) -> None:
    """Publish an Event of the pod with this UID.

    Source: Kubernetes API reference, Event v1 events.k8s.io.
    """
    regarding = {"apiVersion": "v1", "kind": "Pod", "name": own_name(), "uid": uid}
    content = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": event.name},
        "regarding": regarding | {"namespace": _namespace()},
        "type": "Warning" if event.warns else "Normal",
        "reason": event.reason,
        "action": "Pull",
        "note": event.note.encode()[:_MAX_NOTE].decode(errors="ignore"),
        "eventTime": event.when.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "reportingController": CONTROLLER,
        "reportingInstance": own_name(),
    }
    try:
        _ask("POST", f"/apis/events.k8s.io/v1/namespaces/{_namespace()}/events", content)
    except ClusterError as error:
        if error.status != _CONFLICT:
            raise


def keep(configmap: str, data: dict[str, str]) -> None:
    """Write ``data`` into an existing ConfigMap; its other keys stay."""
    path = f"/api/v1/namespaces/{_namespace()}/configmaps/{configmap}"
    _ask("PATCH", path, {"data": data}, "application/merge-patch+json")  # RFC 7396


def _own_pod() -> _Pod:
    path = f"/api/v1/namespaces/{_namespace()}/pods/{own_name()}"
    try:
        return typed_json.decode(_ask("GET", path), _Pod)
    except msgspec.DecodeError as error:
        raise ClusterError(f"GET {path}: not a Pod ({_reason(error)})") from error


def _namespace() -> str:
    try:
        return Path(SERVICE_ACCOUNT, "namespace").read_text().strip()
    except OSError as error:
        raise ClusterError(_reason(error)) from error


def _ask(
    method: str, path: str, body: object = None, media_type: str = "application/json"
) -> bytes:
    # The library would keep the connection open as long as the process lives.
    headers = {"Accept": "application/json", "Content-Type": media_type, "Connection": "close"}
    try:
        with _client() as api:
            request = api.param_serialize(
                method, path, header_params=headers, body=body, auth_settings=["BearerToken"]
            )
            response = api.call_api(*request, _request_timeout=_SECONDS)
            content: bytes = response.read()
    except Exception as error:
        raise ClusterError(failure_reason(error)) from error
    if not 200 <= response.status < 300:  # noqa: PLR2004 - what is success
        text = printable(f"{method} {path}: {response.status} {_why(content)}")
        raise ClusterError(text, response.status)
    return content


def load() -> tuple[Any, Any, Any]:
    """Import the library, which takes a second or longer, and no network. It has no types."""
    # These imports take longer than all others of a pull, and not every run needs them.
    from kubernetes.client.api_client import ApiClient  # noqa: PLC0415
    from kubernetes.client.configuration import Configuration  # noqa: PLC0415
    from kubernetes.config.incluster_config import InClusterConfigLoader  # noqa: PLC0415

    return ApiClient, Configuration, InClusterConfigLoader


def _client() -> Any:  # noqa: ANN401 - the library has no types
    ApiClient, Configuration, InClusterConfigLoader = load()  # noqa: N806 - classes
    configuration = Configuration()
    configuration.retries = False  # a report is late rather than twice, and no redirect is followed
    authority = os.path.join(SERVICE_ACCOUNT, "ca.crt")
    InClusterConfigLoader(token_path(), authority).load_and_set(configuration)
    return ApiClient(configuration)


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
    try:
        pod = await asyncio.wait_for(asyncio.wrap_future(aside(_own_pod)), _IMAGE_SECONDS)
    except Exception as error:  # noqa: BLE001 - a pull does not depend on the API
        reason = str(error) or f"no answer within {_IMAGE_SECONDS:.0f} s"
        _log.warning("cannot read from the cluster which Plex the pod will run", reason=reason)
        return ""
    images = (container.image for container in pod.spec.containers)
    return next((image for image in images if _PLEX.fullmatch(image)), "")


def aside(work: Callable[[], T]) -> Future[T]:
    """Start ``work`` in a thread for which the process does not wait.

    A query to a name server can take minutes and cannot be canceled.
    """
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()  # it cannot be canceled from here on

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - the waiting thread gets it
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def _why(content: bytes) -> str:
    try:
        status = typed_json.decode(content, _Status)
    except msgspec.DecodeError:
        return ""
    return status.message or status.reason


def _reason(error: Exception) -> str:
    return printable(str(error).partition("\n")[0] or type(error).__name__)
