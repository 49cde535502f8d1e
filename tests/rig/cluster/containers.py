"""Containers of the images that ``make images`` built, run without a daemon."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from shared import __version__

_PODMAN = ("podman", "--runtime", "runc", "--cgroup-manager=cgroupfs")
_LIMITS = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000")
BASE = "localhost/plexodus-base:latest"


def image(name: str) -> str:
    """Return the full name of image ``plexodus-<name>``. ``puller-root`` is the one for root."""
    name, _, variant = name.partition("-")
    return f"localhost/plexodus-{name}:{__version__}{variant and f'-{variant}'}"


def command(name: str, *arguments: object, options: tuple[str, ...] = ()) -> list[str]:
    """Return the command for a container like a hardened pod's: read-only root, no capabilities."""
    hardened = ("--read-only", "--cap-drop=all", "--security-opt=no-new-privileges", "--net=host")
    return [
        *(*_PODMAN, "run", "--rm", *_LIMITS, *hardened, *options, image(name)),
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
        timeout=120,
    )


def inspected(name: str) -> dict[str, Any]:
    """Return podman's description of an image."""
    done = subprocess.run(
        [*_PODMAN, "image", "inspect", name], check=True, capture_output=True, text=True
    )
    [found] = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found
