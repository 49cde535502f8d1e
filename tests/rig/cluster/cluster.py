"""A real API server and etcd as processes of this machine, with kubectl and helm."""

from __future__ import annotations

import json
import os
import subprocess
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rig.hostile.authority import Authority
from rig.ports import reserve_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).parents[3]
TOOLS = ROOT / "build" / "tools"
SERVICE = "127.96.0.1"
"""Address of the API for pods on the host's network: a loopback address of this machine."""
_START_SECONDS = 90
_ADMIN = "the-admins-token"


@dataclass(frozen=True)
class Cluster:
    """A control plane without nodes and controllers."""

    folder: Path
    port: int
    service: str = SERVICE
    """Address of the API for pods."""

    @property
    def authority(self) -> Path:
        """Path of its CA's certificate."""
        return self.folder / "ca" / "ca.crt"

    @property
    def key(self) -> Path:
        """Path of the key that signs tokens."""
        return self.folder / "ca" / "localhost.key"

    def kubectl(
        self, *arguments: object, stdin: str | None = None, token: str = _ADMIN, check: bool = True
    ) -> str:
        """Return the output of kubectl. It must succeed if ``check``."""
        done = self.tried("kubectl", *arguments, stdin=stdin, token=token)
        assert done.returncode == 0 or not check, done.stderr
        return done.stdout + (done.stderr if done.returncode else "")

    def helm(self, *arguments: object) -> str:
        """Return the output of helm, which must succeed."""
        done = self.tried("helm", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def tried(
        self, program: str, *arguments: object, stdin: str | None = None, token: str = _ADMIN
    ) -> subprocess.CompletedProcess[str]:
        """Run a client of the API with ``token``, and return how it ended."""
        return subprocess.run(
            [TOOLS / "bin" / program, *map(str, arguments)],
            check=False,
            capture_output=True,
            text=True,
            input=stdin,
            timeout=120,
            env=dict(os.environ) | self.environment(token),
        )

    def environment(self, token: str = _ADMIN) -> dict[str, str]:
        """Return the environment in which clients of the API use ``token``."""
        config = self.folder / f"config-{hash(token):x}"
        config.write_text(json.dumps(self._config(token)))
        return {"KUBECONFIG": str(config), "HOME": str(self.folder)}

    def get(self, *arguments: object) -> Any:  # noqa: ANN401 - whatever was asked for
        """Return an object, or the items of a list."""
        found = json.loads(self.kubectl("get", "-o", "json", *arguments))
        return found["items"] if found["kind"] == "List" else found

    def token(self, namespace: str, account: str) -> str:
        """Return a token of a ServiceAccount, like the one that kubelet gets for a pod."""
        return self.kubectl("create", "token", account, "-n", namespace).strip()

    def _config(self, token: str) -> dict[str, Any]:
        cluster = {
            "server": f"https://localhost:{self.port}",
            "certificate-authority": str(self.authority),
        }
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "it", "cluster": cluster}],
            "users": [{"name": "we", "user": {"token": token}}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "we"}}],
            "current-context": "it",
        }


@contextmanager
def running_cluster(
    folder: Path, service: str = SERVICE, options: Sequence[str] = ()
) -> Iterator[Cluster]:
    """Start a cluster, wait until it answers, and stop it at the end.

    Args:
        folder: its files.
        service: address of the API for pods.
        options: more options of the API server.
    """
    with ExitStack() as stack:
        cluster = Cluster(folder, reserve_port(), service)
        certificate, key = Authority(folder / "ca").issue("localhost", f"IP:{service}")
        (folder / "tokens.csv").write_text(f"{_ADMIN},admin,1,system:masters\n")
        clients, peers = reserve_port(), reserve_port()
        etcd = TOOLS / "bin" / "etcd"
        start(
            stack, folder / "etcd.log",
            [
                etcd, "--data-dir", folder / "etcd",
                f"--listen-client-urls=http://127.0.0.1:{clients}",
                f"--advertise-client-urls=http://127.0.0.1:{clients}",
                f"--listen-peer-urls=http://127.0.0.1:{peers}",
                f"--initial-advertise-peer-urls=http://127.0.0.1:{peers}",
                f"--initial-cluster=default=http://127.0.0.1:{peers}",
            ],
        )  # fmt: skip
        server = start(
            stack, folder / "apiserver.log",
            [
                TOOLS / "bin" / "kube-apiserver",
                f"--etcd-servers=http://127.0.0.1:{clients}",
                "--bind-address=127.0.0.1", "--endpoint-reconciler-type=none",
                f"--secure-port={cluster.port}", f"--cert-dir={folder / 'apiserver'}",
                f"--tls-cert-file={certificate}", f"--tls-private-key-file={key}",
                "--authorization-mode=RBAC", f"--token-auth-file={folder / 'tokens.csv'}",
                "--service-account-issuer=https://kubernetes.default.svc",
                f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}",
                f"--service-cluster-ip-range={service}/24", *options,
            ],
        )  # fmt: skip
        _wait_for(cluster, server)
        yield cluster


def start(stack: ExitStack, log: Path, command: Sequence[object]) -> subprocess.Popen[bytes]:
    """Start a process that is killed when ``stack`` unwinds, with its output in ``log``."""
    with log.open("wb") as file:
        process = subprocess.Popen([str(each) for each in command], stdout=file, stderr=file)
    stack.callback(process.wait, 30)
    stack.callback(process.kill)
    return process


def _wait_for(cluster: Cluster, server: subprocess.Popen[bytes]) -> None:
    log = cluster.folder / "apiserver.log"
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text()[-3000:]
        if cluster.tried("kubectl", "get", "--raw", "/readyz").stdout == "ok":
            return
        time.sleep(0.5)
    raise TimeoutError(log.read_text()[-3000:])
