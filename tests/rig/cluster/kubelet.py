"""A stand-in for kubelet in a cluster without nodes: it runs one container of a Pod by its spec."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from rig.cluster import containers

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from rig.cluster.cluster import Cluster
    from rig.programs import Agent

NAMESPACE = "media"
POD = "plex-plex-media-server-0"


def make_pod(cluster: Cluster) -> None:
    """Create the Pod as the StatefulSet's controller would, which does not run."""
    found = cluster.get("statefulset", POD.removesuffix("-0"), "-n", NAMESPACE)
    template = found["spec"]["template"]
    volume = {"name": "pms-config", "persistentVolumeClaim": {"claimName": f"pms-config-{POD}"}}
    template["spec"]["volumes"].append(volume)
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": POD, "namespace": NAMESPACE, **template["metadata"]},
        "spec": template["spec"],
    }
    cluster.kubectl("create", "-f", "-", stdin=json.dumps(pod))


class Kubelet:
    """Runs the puller's init container of :data:`POD` by its spec, and reports how it ended."""

    def __init__(self, cluster: Cluster, folder: Path, agent: Agent, target: Path) -> None:
        self._cluster = cluster
        self._folder = folder
        self._target = target
        pod = cluster.get("pod", POD, "-n", NAMESPACE)
        self._spec = next(each for each in pod["spec"]["initContainers"] if "pull" in each["args"])
        self._uid = pod["metadata"]["uid"]
        account = pod["spec"]["serviceAccountName"]
        self._write("account/token", cluster.token(NAMESPACE, account))
        self._write("account/namespace", NAMESPACE)
        self._write("account/ca.crt", cluster.authority.read_text())
        self._write("pairing/PLEXODUS_PAIRING", agent.pairing)

    def run(self, *options: str, port: int | None = None) -> subprocess.CompletedProcess[str]:
        """Run the container to its end. ``port`` replaces the API server's port."""
        self._write("last-word", "").chmod(0o666)
        folders = {
            "/config": self._target,
            "/run/plexodus": self._folder / "pairing",
            "/var/run/secrets/kubernetes.io/serviceaccount": self._folder / "account",
            "/dev/termination-log": self._folder / "last-word",
        }
        wanted = {mount["mountPath"] for mount in self._spec["volumeMounts"]}
        assert wanted == {path for path in folders if not path.startswith("/dev")}
        context = self._spec["securityContext"]
        capabilities = context["capabilities"]
        assert capabilities["drop"] == ["ALL"]
        assert context["readOnlyRootFilesystem"]
        given = self._environment() | {
            "KUBERNETES_SERVICE_HOST": "localhost",
            "KUBERNETES_SERVICE_PORT": str(port or self._cluster.port),
        }
        done = containers.run(
            "puller",
            *self._spec["args"],
            *options,
            options=(
                f"--user={context['runAsUser']}:{context['runAsGroup']}",
                *(f"--cap-add={each}" for each in capabilities["add"]),
                *(f"--env={name}={value}" for name, value in given.items()),
                *(f"--volume={source}:{path}" for path, source in folders.items()),
            ),
            check=False,
        )
        self._tell(done.returncode)
        return done

    def _environment(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for source in self._spec["envFrom"]:
            name = source["configMapRef"]["name"]
            found |= self._cluster.get("configmap", name, "-n", NAMESPACE)["data"]
        fields = {"metadata.name": POD, "metadata.uid": self._uid}
        for each in self._spec["env"]:
            field = each.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
            found[each["name"]] = each["value"] if field is None else fields[field]
        found["PLEXODUS_NO_CUTOVER"] = "1"  # there is no Plex beside this agent
        return found

    def _tell(self, code: int) -> None:
        """Report the container's status with its termination message, as kubelet does."""
        ended = {
            "exitCode": code,
            "reason": "Completed" if code == 0 else "Error",
            "message": (self._folder / "last-word").read_text(),
        }
        status = {
            "name": self._spec["name"], "image": self._spec["image"], "imageID": "",
            "ready": code == 0, "restartCount": 0, "state": {"terminated": ended},
        }  # fmt: skip
        patch = json.dumps({"status": {"initContainerStatuses": [status]}})
        command = ("patch", "pod", POD, "-n", NAMESPACE, "--subresource=status", "--type=merge")
        self._cluster.kubectl(*command, "-p", patch)

    def _write(self, name: str, content: str) -> Path:
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        return path
