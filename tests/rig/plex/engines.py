"""Real container engines, Docker and Podman, with the stand-in for Plex in a container.

The image has no files but the links that every Debian has. The machine's own ``/usr`` and Python
are mounted into the container, so nothing has to be downloaded or built.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rig.plex import standin
from rig.plex.commands import SERVER
from rig.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence

IMAGE = "plexodus-test/plex:1"
NAME = "plex"
_LINKS = ("bin", "sbin", "lib", "lib64")
_FOLDERS = ("usr", "config", "dev", "proc", "sys", "etc", "tmp", "standin", "python")
_INSIDE = f"/config/Library/{SERVER}"
_INIT = """\
trap 'kill -TERM "$plex"' TERM
bash -c 'exec -a "/usr/lib/plexmediaserver/Plex Media Server" "$0" "$@"' "$@" &
plex=$!
wait "$plex"
wait "$plex"
"""
"""The first process of a container. Like the init of Plex's images, it starts Plex as its child."""


@dataclass
class Engine(ABC):
    """One engine with data, socket and runtime folders of its own below ``here``."""

    here: Path
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def socket(self) -> Path:
        """Return the path of its socket."""
        return self.here / "engine.sock"

    @property
    @abstractmethod
    def server(self) -> list[str]:
        """Return the command that serves the API."""

    @property
    @abstractmethod
    def client(self) -> list[str]:
        """Return the command line's beginning of a client."""

    def start(self) -> None:
        """Start serving, as at a boot of the machine."""
        with (self.here / "engine.log").open("ab") as log:
            self._process = subprocess.Popen(self.server, stdout=log, stderr=log)
        wait_until(lambda: self._client("ps").returncode == 0, 60)

    def end(self) -> None:
        """End the engine as a shutdown of the machine does, with its network namespaces."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(60)
            self._process = None
        for each in (self.here / "run" / "netns").glob("*"):
            subprocess.run(["umount", each], check=False, capture_output=True)

    def run(self, *arguments: str) -> str:
        """Return the output of a client's command, which must succeed."""
        done = self._client(*arguments)
        assert done.returncode == 0, done.stderr + (self.here / "engine.log").read_text()
        return done.stdout

    def fails(self, *arguments: str) -> bool:
        """Return whether a client's command fails."""
        return self._client(*arguments).returncode != 0

    def _client(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [*self.client, *arguments]
        return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)

    def load_image(self) -> None:
        """Give it the image."""
        with io.BytesIO() as file:
            with tarfile.open(fileobj=file, mode="w") as tar:
                for name in _FOLDERS:
                    folder = tarfile.TarInfo(name)
                    folder.type, folder.mode = tarfile.DIRTYPE, 0o755
                    tar.addfile(folder)
                for name in _LINKS:
                    link = tarfile.TarInfo(name)
                    link.type, link.linkname = tarfile.SYMTYPE, f"usr/{name}"
                    tar.addfile(link)
            image = self.here / "image.tar"
            image.write_bytes(file.getvalue())
        self.run("import", str(image), IMAGE)

    def create(self, config: Path, *options: str) -> None:
        """Create and start Plex's container, with ``config`` as its ``/config``."""
        self.run("run", "--detach", *plex_options(config), *options, IMAGE, *plex())

    def run_plex(self, config: Path, *options: str, command: Sequence[str] = ()) -> None:
        """Create Plex's container, and wait until Plex writes into its database."""
        self.run("run", "--detach", *plex_options(config), *options, IMAGE, *(command or plex()))
        database = config / "Library" / SERVER / standin.DATABASE
        wait_until(lambda: database.with_name(f"{database.name}-wal").exists(), 30)

    def inspect(self) -> dict[str, Any]:
        """Return what the engine tells of Plex's container."""
        [found] = json.loads(self.run("inspect", "--type", "container", NAME))
        return dict(found)

    def is_running(self) -> bool:
        """Return whether Plex's container runs."""
        return bool(self.inspect()["State"]["Running"])

    def wait_until(self, *, running: bool, seconds: float = 30.0) -> None:
        """Wait until Plex's container runs, or does not."""
        wait_until(lambda: self.is_running() is running, seconds)


class Docker(Engine):
    """Docker's own engine. It uses neither networks nor a storage driver of the kernel's."""

    @property
    def server(self) -> list[str]:
        """Return the command that serves the API."""
        return [
            *("dockerd", "--host", f"unix://{self.socket}", "--data-root", str(self.here / "data")),
            *("--exec-root", str(self.here / "run"), "--pidfile", str(self.here / "pid")),
            *("--bridge", "none", "--iptables=false", "--storage-driver", "vfs"),
        ]

    @property
    def client(self) -> list[str]:
        """Return the command line's beginning of a client."""
        return ["docker", "--host", f"unix://{self.socket}"]


class Podman(Engine):
    """Podman with its Docker-compatible socket."""

    @property
    def server(self) -> list[str]:
        """Return the command that serves the API."""
        return [*self.client, "system", "service", "--time=0", f"unix://{self.socket}"]

    @property
    def client(self) -> list[str]:
        """Return the command line's beginning of a client."""
        folders = ("--root", str(self.here / "data"), "--runroot", str(self.here / "run"))
        more = ("--runtime", "runc", "--cgroup-manager=cgroupfs", "--storage-driver=vfs")
        return ["podman", *folders, *more, "--events-backend=file"]


def plex_options(config: Path) -> list[str]:
    """Return the options of Plex's container, for ``run`` and ``create``."""
    mounts = {
        str(config): "/config",
        "/usr": "/usr:ro",
        sys.base_prefix: f"{sys.base_prefix}:ro",
        str(Path(standin.__file__).parent): "/standin:ro",
    }
    options = ["--name", NAME, "--network", "host", "--ulimit", "nofile=1024:1024"]
    options += ["--ulimit", "nproc=1000:1000", "--env", f"PYTHONHOME={sys.base_prefix}"]
    return options + [f"--volume={source}:{target}" for source, target in mounts.items()]


def plex() -> list[str]:
    """Return the command of Plex's container: the stand-in, under the name of Plex."""
    return ["/bin/sh", "-c", _INIT, "init", *standin_command()]


def standin_command() -> list[str]:
    """Return the command of the stand-in in a container."""
    return [os.path.realpath(sys.executable), "/standin/standin.py", _INSIDE]
