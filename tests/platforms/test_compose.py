"""The Compose file of the documentation: Plex and the agent as containers side by side."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from rig.cluster.containers import image
from rig.oracle import rsync_differences, sums_hold
from rig.plex import standin
from rig.plex.commands import SERVER, only_plex
from rig.plex.engines import IMAGE, NAME, Docker, plex, plex_options
from rig.ports import reserve_port
from rig.programs import Puller
from rig.virtual_machine import REPOSITORY
from rig.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.platforms
FILE = REPOSITORY / "docs" / "platforms" / "compose.yaml"
AGENT = "plexodus-agent"
COMPOSE = ("docker-compose", str(REPOSITORY / "build" / "tools" / "bin" / "docker-compose-2"))
"""Version 1 of Debian, and version 2."""


class Composed:
    """A folder of an administrator with that file, and with what the test has in other places."""

    def __init__(self, here: Path, engine: Docker, library: Path, program: str) -> None:
        self.library = here / "config" / "Library"
        self.port = reserve_port()
        self._engine = engine
        self._here = here
        self._program = program
        shutil.copy(FILE, here)
        self.library.parent.mkdir()
        library.rename(self.library)
        (here / "agent.toml").write_text('container = "plex"\nstop_seconds = 20\n')
        (here / "docker-compose.override.yml").write_text(json.dumps(self._elsewhere()))

    def _elsewhere(self) -> dict[str, Any]:
        given = plex_options(self.library.parent)
        mounts = [each.partition("=")[2] for each in given if each.startswith("--volume=")]
        environment = given[given.index("--env") + 1]
        limits = {"nofile": 1024, "nproc": 1000}
        media = self._here / "media"
        media.mkdir()
        # Compose would take a dollar sign of the init for a variable of its own.
        command = [each.replace("$", "$$") for each in plex()]
        stand_in = {"image": IMAGE, "command": command, "environment": [environment]}
        return {
            "services": {
                "plex": {**stand_in, "volumes": [*mounts, f"{media}:/data:ro"], "ulimits": limits},
                AGENT: {
                    "volumes": [f"{self._engine.socket}:/run/docker.sock"],
                    "environment": [f"PLEXODUS_LISTEN=127.0.0.1:{self.port}"],
                    "ulimits": limits,
                },
            }
        }

    def compose(self, *arguments: str) -> str:
        """Return the output of a command of Compose in the folder."""
        files = ("--file", "compose.yaml", "--file", "docker-compose.override.yml")
        done = subprocess.run(
            [self._program, "--project-name", "plexodus-test", *files, *arguments],
            check=False,
            capture_output=True,
            text=True,
            cwd=self._here,
            timeout=120,
            env=os.environ | {"DOCKER_HOST": f"unix://{self._engine.socket}"},
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def agent(self, *arguments: str) -> str:
        """Return the output of a command of the agent, in its container."""
        return self._engine.run("exec", AGENT, "plexodus-agent", *arguments)

    def pair(self) -> str:
        """Return a pairing string, and start the agent."""
        address = ("--address", f"127.0.0.1:{self.port}")
        pairing = self.compose("run", "--rm", "-T", AGENT, "pair", *address).strip()
        self.compose("up", "--detach")
        wait_until(self.is_up)
        return pairing

    def is_up(self) -> bool:
        """Return whether the agent's container runs and its port is open."""
        probe = f": < /dev/tcp/127.0.0.1/{self.port}"
        return (
            subprocess.run(["bash", "-c", probe], check=False, capture_output=True).returncode == 0
        )


@pytest.fixture
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    """Start an engine that has the images of Plex's stand-in and of the agent."""
    engine = Docker(tmp_path_factory.mktemp("engine"))
    engine.start()
    try:
        engine.load_image()
        archive = engine.here / "agent.tar"
        push = ["buildah", "push", "--quiet", image("agent")]
        name = f"docker-archive:{archive}:{AGENT}:latest"
        subprocess.run([*push, name], check=True, capture_output=True)
        engine.run("load", "--input", str(archive))
        archive.unlink()
        with only_plex():
            yield engine
    finally:
        for name in (NAME, AGENT):
            engine.fails("rm", "--force", name)
        engine.end()


@pytest.fixture(params=COMPOSE, ids=["compose 1", "compose 2"])
def composed(
    docker: Docker, plex_library: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> Composed:
    """Start Plex, and wait until it writes into its database."""
    (tmp_path / "compose").mkdir()
    composed = Composed(tmp_path / "compose", docker, plex_library, request.param)
    composed.compose("up", "--detach", NAME)
    database = composed.library / SERVER / standin.DATABASE
    wait_until(lambda: database.with_name(f"{database.name}-wal").exists(), 30)
    return composed


def test_move_and_fence_beside_plex(
    composed: Composed, docker: Docker, target: Path, tmp_path: Path
) -> None:
    """The agent's container moves the library of the other one, and 'up' does not start Plex."""
    puller = Puller(target, tmp_path / "puller.log", composed.pair(), cutover=True)
    done = puller.pull()
    assert done.code == 0, done.text
    assert not docker.is_running()
    assert rsync_differences(composed.library, target / "Library") == []
    assert sums_hold(target)
    composed.compose("up", "--detach")
    docker.wait_until(running=False)
    assert rsync_differences(composed.library, target / "Library") == []
    composed.compose("up", "--detach", "--force-recreate", NAME)
    docker.wait_until(running=False)

    assert "Plex may run on this machine" in composed.agent("undo")
    docker.wait_until(running=True)


def test_boot_after_the_move_beside_plex(
    composed: Composed, docker: Docker, target: Path, tmp_path: Path
) -> None:
    """After a boot, the agent's container runs again, and Plex's does not ('unless-stopped')."""
    puller = Puller(target, tmp_path / "puller.log", composed.pair(), cutover=True)
    assert puller.pull().code == 0
    docker.end()
    docker.start()
    wait_until(composed.is_up)
    assert not docker.is_running()
    assert rsync_differences(composed.library, target / "Library") == []
