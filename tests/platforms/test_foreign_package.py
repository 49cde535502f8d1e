"""The Debian package for another architecture: ``make test-arm64``, under emulation."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
from rig.cluster import containers
from rig.oracle import rsync_differences
from rig.ports import reserve_port
from rig.virtual_machine import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.images, pytest.mark.foreign]

_SCRIPT = """\
apt-get update -qq >&2
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends /agent.deb >&2
plexodus-agent --version >&2
plexodus-agent pair --address {address}
exec plexodus-agent serve --listen {address}
"""


def test_package_serves_a_library(tmp_path: Path, library: Path, target: Path) -> None:
    """A Debian of that architecture installs the package; its agent pairs and serves a library."""
    [package] = (REPOSITORY / "build").glob(f"plexodus-agent_*_{containers.ARCHITECTURE}.deb")
    serve = [
        *("podman", "--runtime", "runc", "--cgroup-manager=cgroupfs", "run", "--rm"),
        *(f"--arch={containers.ARCHITECTURE}", "--net=host", f"--volume={package}:/agent.deb:ro"),
        *("--ulimit=nofile=1024:1024", "--ulimit=nproc=1000:1000"),
        *(f"--volume={library}:/Library:ro", "--env=PLEXODUS_LIBRARY=/Library", containers.BASE),
        *("sh", "-euc", _SCRIPT.format(address=f"127.0.0.1:{reserve_port()}")),
    ]
    with subprocess.Popen(
        serve, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            pairing = process.stdout.readline().strip()
            said = []
            for line in process.stderr:
                said.append(line)
                if "serving" in line or "listening" in line:
                    break
            assert "accelerator: in use\n" in said
            ours = (
                *(f"--volume={target}:/config", "--env=PLEXODUS_TARGET=/config", "--user=0:0"),
                *(f"--env=PLEXODUS_PAIRING={pairing}", "--env=PLEXODUS_NO_CUTOVER=1"),
                *("--cap-add=CHOWN", "--cap-add=DAC_OVERRIDE", "--cap-add=FOWNER"),
            )
            containers.run("puller", options=ours)
        finally:
            process.terminate()
            process.communicate(timeout=60)
    assert rsync_differences(library, target / "Library") == []
