"""The cluster that we run in, asked through its API: the only file that knows ``kubernetes``.

Outside of a cluster, without a service account or without its rights nothing is known, and that is
said once: a pull never depends on it.
"""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

import structlog

from shared.errors import printable

_log = structlog.get_logger("puller")

SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
"""Where a pod finds its token, its CA and its namespace (Kubernetes documentation, "Accessing the
Kubernetes API from a Pod")."""
_SECONDS = 5.0
_PLEX = re.compile(r"(?:.*/)?[^/]*(?:pms|plex(?!odus))[^/]*")


def is_in_cluster() -> bool:
    """Whether we may ask the API at all."""
    return os.path.exists(os.path.join(SERVICE_ACCOUNT, "token"))


async def plex_image() -> str:
    """The image of the container that runs Plex in our own pod; empty if that cannot be told."""
    if not is_in_cluster():
        return ""
    try:
        async with asyncio.timeout(_SECONDS):
            images = await _own_images()
    except Exception as error:  # noqa: BLE001 - whatever it is, it must not hold up the pull
        reason = printable(str(error).partition("\n")[0] or type(error).__name__)
        _log.warning("the cluster does not tell which Plex the pod will run", reason=reason)
        return ""
    return next((image for image in images if _PLEX.fullmatch(image)), "")


async def _own_images() -> list[str]:
    # Takes longer to import than all else that a pull needs.
    from kubernetes.aio import client  # noqa: PLC0415
    from kubernetes.aio.config.incluster_config import InClusterConfigLoader  # noqa: PLC0415

    configuration = client.Configuration()
    InClusterConfigLoader(
        os.path.join(SERVICE_ACCOUNT, "token"), os.path.join(SERVICE_ACCOUNT, "ca.crt")
    ).load_and_set(configuration)
    namespace = await asyncio.to_thread(Path(SERVICE_ACCOUNT, "namespace").read_text)
    async with client.ApiClient(configuration) as api:
        name = os.environ.get("HOSTNAME", "")  # the pod's own, unless it sets another
        pod = await client.CoreV1Api(api).read_namespaced_pod(name, namespace.strip())
        return [str(container.image) for container in pod.spec.containers]
