"""A real node: kubelet, containerd and runc as processes. By default, pods are on its network."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rig.cluster.cluster import TOOLS, start
from rig.cluster.containers import BASE
from rig.ports import reserve_port
from rig.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rig.cluster.cluster import Cluster

NAME = "node"
_PAUSE = "localhost/pause:1"
_SECONDS = 60.0
_OVERLAID = ("ext2/ext3", "xfs")
"""Filesystems on which overlayfs certainly works; on another overlayfs, it does not."""
_CONTAINERD = """\
version = 2
root = "{folder}/root"
state = "{folder}/state"
[grpc]
  address = "{folder}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  # CAP_SYS_RESOURCE may be missing here.
  restrict_oom_score_adj = true
{network}
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{snapshotter}"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
"""


@dataclass
class Node:
    """A node, with its files in ``folder``."""

    folder: Path
    name: str = NAME
    kubelet: subprocess.Popen[bytes] | None = None

    def load(self, source: str, name: str) -> None:
        """Import image ``source`` under the ``name`` that a Pod's spec has."""
        archive = self.folder / "image.tar"
        subprocess.run(
            ["buildah", "push", "--quiet", source, f"docker-archive:{archive}:{name}"],
            check=True,
            capture_output=True,
        )
        self._containerd("images", "import", archive)
        archive.unlink()

    def containers(self) -> list[str]:
        """Return the names of all running containers."""
        return self._containerd("tasks", "ls", "-q").split()

    def processes(self) -> list[int]:
        """Return the process id of each running container's first process."""
        rows = [line.split() for line in self._containerd("tasks", "ls").splitlines()[1:]]
        return [int(pid) for _, pid, state in rows if state == "RUNNING"]

    def shims(self) -> list[int]:
        """Return the process ids of the shims, by which containerd runs its pods."""
        pids = [int(name) for name in os.listdir("/proc") if name.isdecimal()]
        return [pid for pid in pids if self._owns(pid)]

    def _owns(self, pid: int) -> bool:
        """Return whether a process is a shim of this node's containerd."""
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        socket = os.fsencode(self.folder / "containerd.sock")
        return b"containerd-shim" in words[0] and socket in words

    def lose(self) -> None:
        """Kill the kubelet and all containers, as if the machine had lost its power."""
        assert self.kubelet is not None
        self.kubelet.kill()
        self.kubelet.wait(30)
        self.clear()

    def clear(self) -> None:
        """End all containers that are left. One may end by itself meanwhile."""
        wait_until(self._is_clear, _SECONDS, what="the end of all containers", every=0.5)

    def _is_clear(self) -> bool:
        left = self.containers()
        for each in left:
            self._containerd("tasks", "rm", "-f", each, check=False)
        return not left

    def _containerd(self, *arguments: object, check: bool = True) -> str:
        command = (f"{TOOLS}/bin/ctr", "-a", f"{self.folder}/containerd.sock", "-n", "k8s.io")
        done = subprocess.run(
            [*command, *map(str, arguments)], check=check, capture_output=True, text=True
        )
        return done.stdout


@contextmanager
def running_node(
    cluster: Cluster, folder: Path, name: str = NAME, network: str = ""
) -> Iterator[Node]:
    """Start a node and wait until it is registered. At the end, stop it and unmount its mounts.

    Args:
        cluster: which it joins.
        folder: for its files.
        name: its name.
        network: containerd's settings of a network for each pod; empty: the host's for all.
    """
    folder.mkdir()
    node = Node(folder, name)
    config = folder / "containerd.toml"
    config.write_text(
        _CONTAINERD.format(
            folder=folder, pause=_PAUSE, network=network, snapshotter=_snapshotter(folder)
        )
    )
    settings = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {"anonymous": {"enabled": False}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "containerRuntimeEndpoint": f"unix://{folder}/containerd.sock",
        "address": "127.0.0.1",
        "port": reserve_port(),
        "podLogsDir": f"{folder}/logs",
        "healthzPort": 0,
        # A test machine may lack cgroups v2, and rights to all control groups.
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": False,
        "cgroupsPerQOS": False,
        "enforceNodeAllocatable": [],
        "oomScoreAdj": 0,
        "failSwapOn": False,
        "evictionHard": {"memory.available": "1Mi"},
        # No image is removed on a full disk: none can be pulled.
        "imageGCHighThresholdPercent": 100,
    }
    (folder / "kubelet.json").write_text(json.dumps(settings))
    with ExitStack() as stack:
        stack.callback(_unmount, folder)
        start(stack, folder / "containerd.log", [TOOLS / "bin" / "containerd", "--config", config])
        wait_until((folder / "containerd.sock").exists, what="containerd")
        _make_pause()
        node.load(_PAUSE, _PAUSE)
        stack.callback(node.clear)
        node.kubelet = start(
            stack, folder / "kubelet.log",
            [
                TOOLS / "bin" / "kubelet", "--config", folder / "kubelet.json",
                "--kubeconfig", cluster.environment()["KUBECONFIG"],
                "--root-dir", folder / "kubelet", f"--hostname-override={name}",
            ],
        )  # fmt: skip
        wait_until(
            lambda: f"node/{name}\n" in cluster.kubectl("get", "nodes", "-o", "name"),
            what="the node",
        )
        # Without a network for pods, the node reports so. Pods on the host's do not need one.
        yield node


def _snapshotter(folder: Path) -> str:
    """Return what gives containers their root: a copy of the image takes many seconds for each."""
    command = ["stat", "--file-system", "--format=%T", str(folder)]
    kind = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    return "overlayfs" if kind in _OVERLAID else "native"


def build(name: str, source: str, *configured: str, files: dict[Path, str] | None = None) -> None:
    """Build an image from ``source`` and ``files``, a mapping of paths to places in the image."""

    def buildah(*arguments: object) -> str:
        return subprocess.run(
            ["buildah", *map(str, arguments)], check=True, capture_output=True, text=True
        ).stdout.strip()

    container = buildah("from", source)
    for path, place in (files or {}).items():
        buildah("copy", container, path, place)
    buildah("config", *configured, container)
    buildah("commit", "--quiet", container, name)
    buildah("rm", container)


def _make_pause() -> None:
    build(_PAUSE, BASE, "--entrypoint", '["/bin/sleep", "infinity"]')


def _unmount(folder: Path) -> None:
    """Unmount everything that kubelet and the shims leave below ``folder``."""
    for line in reversed(open_mounts(folder)):
        subprocess.run(["umount", "--lazy", line], check=False)


def open_mounts(folder: Path) -> list[str]:
    """Return the mount points below ``folder``, in the order in which they were mounted."""
    with open("/proc/self/mounts") as mounts:
        places = [line.split()[1].replace("\\040", " ") for line in mounts]
    return [place for place in places if place.startswith(f"{folder}/")]
