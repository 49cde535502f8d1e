"""The Debian package for another architecture: ``make test-arm64``, under emulation."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
from rig.cluster import containers
from rig.oracle import rsync_differences
from rig.ports import reserve_port
from rig.virtual_machine import REPOSITORY

from shared import __version__

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.images, pytest.mark.foreign]

_INSTALL = "dpkg --install /agent.deb >&2 && plexodus-agent --version >&2 && exec plexodus-agent "


def _command(package: Path, state: Path, library: Path, arguments: str) -> list[str]:
    return [
        *("podman", "--runtime", "runc", "--cgroup-manager=cgroupfs", "run", "--rm"),
        *(f"--arch={containers.ARCHITECTURE}", "--net=host", f"--volume={package}:/agent.deb:ro"),
        *("--ulimit=nofile=1024:1024", "--ulimit=nproc=1000:1000"),
        *(f"--volume={library}:/Library:ro", f"--volume={state}:/var/lib/plexodus"),
        *("--env=PLEXODUS_LIBRARY=/Library", "--env=PLEXODUS_STATE=/var/lib/plexodus"),
        *(containers.BASE, "sh", "-c", f"{_INSTALL}{arguments}"),
    ]


def test_package_serves_a_library(tmp_path: Path, library: Path, target: Path) -> None:
    """A Debian of that architecture installs the package; its agent pairs and serves a library."""
    [package] = (REPOSITORY / "build").glob(f"plexodus-agent_*_{containers.ARCHITECTURE}.deb")
    state, port = tmp_path / "state", reserve_port()
    state.mkdir()
    pair = _command(package, state, library, f"pair --address 127.0.0.1:{port}")
    paired = subprocess.run(pair, check=True, capture_output=True, text=True, timeout=600)
    assert f"version {__version__}\naccelerator: in use\n" in paired.stderr
    serve = _command(package, state, library, f"serve --listen 127.0.0.1:{port}")
    with subprocess.Popen(serve, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            next(line for line in process.stderr if "listening" in line or "serving" in line)
            ours = (
                *(f"--volume={target}:/config", "--env=PLEXODUS_TARGET=/config", "--user=0:0"),
                *(f"--env=PLEXODUS_PAIRING={paired.stdout.strip()}", "--cap-add=CHOWN"),
                *("--cap-add=DAC_OVERRIDE", "--cap-add=FOWNER", "--env=PLEXODUS_NO_CUTOVER=1"),
            )
            containers.run("puller", options=ours)
        finally:
            process.terminate()
            process.communicate(timeout=60)
    assert rsync_differences(library, target / "Library") == []
