"""Containers of the images that ``make images`` built, run without a daemon.

With ``PLEXODUS_TEST_ARCHITECTURE`` they are those for another architecture, run by an emulator.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from typing import Any

from shared import __version__

_PODMAN = ("podman", "--runtime", "runc", "--cgroup-manager=cgroupfs")
_LIMITS = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000")
_FOREIGN = os.environ.get("PLEXODUS_TEST_ARCHITECTURE")
_OURS = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
ARCHITECTURE = _FOREIGN or _OURS
_SUFFIX = f"-{_FOREIGN}" if _FOREIGN else ""
_SECONDS = 600 if _FOREIGN else 120
BASE = f"localhost/plexodus-base{_SUFFIX}:latest"


def image(name: str) -> str:
    """Return the full name of image ``plexodus-<name>``. ``puller-root`` is the one for root."""
    name, _, variant = name.partition("-")
    return f"localhost/plexodus-{name}:{__version__}{variant and f'-{variant}'}{_SUFFIX}"


def command(name: str, *arguments: object, options: tuple[str, ...] = ()) -> list[str]:
    """Return the command for a container like a hardened pod's: read-only root, no capabilities."""
    hardened = ("--read-only", "--cap-drop=all", "--security-opt=no-new-privileges", "--net=host")
    return [
        *(
            *_PODMAN,
            "run",
            "--rm",
            f"--arch={ARCHITECTURE}",
            *_LIMITS,
            *hardened,
            *options,
            image(name),
        ),
        *map(str, arguments),
    ]


def run(
    name: str, *arguments: object, options: tuple[str, ...] = (), check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run a container to its end."""
    return subprocess.run(
        command(name, *arguments, options=options),
        check=check,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
    )


def inspected(name: str) -> dict[str, Any]:
    """Return podman's description of an image."""
    done = subprocess.run(
        [*_PODMAN, "image", "inspect", name], check=True, capture_output=True, text=True
    )
    [found] = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found
