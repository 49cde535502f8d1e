"""Volumes of real NFS and SMB servers, in an emulated machine: exact moves, or refused at once."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
from rig.emulated_machine import HOST, make_program_disk, run_in_machine
from rig.mounts import mounted
from rig.oracle import rsync_differences, sums_hold

from agent.server.credentials import make_pairing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rig.programs import Agent

pytestmark = [pytest.mark.platforms, pytest.mark.timeout(400)]
NFS_SERVER = """\
mkdir /disk/config
chown {owner} /disk/config
mkdir -p /run/rpcbind /var/lib/nfs/sm
rpcbind -w
rpc.statd --no-notify
modprobe nfsd
mount -t nfsd nfsd /proc/fs/nfsd
exportfs -o rw,fsid=0,no_subtree_check,{options} 127.0.0.1:/disk/config
rpc.mountd
rpc.nfsd -V 3 -V 4 2
echo Y > /proc/fs/nfsd/v4_end_grace
echo Y > /proc/fs/nfsd/v4_end_grace
"""
NFS_4 = "mount -t nfs4 127.0.0.1:/ /config\n"
AS_PLEX = "setpriv --reuid 1000 --regid 1000 --clear-groups"


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a disk with the puller."""
    image = tmp_path_factory.mktemp("programs") / "puller.img"
    make_program_disk(image)
    return image


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """Return the image of an empty disk for the machine."""
    image = tmp_path / "disk.img"
    subprocess.run(["truncate", "-s", "700M", image], check=True)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    return image


@pytest.fixture
def agent(made: Path, new_agent: Callable[[Path], Agent]) -> Agent:
    """Return an agent that serves a Plex library to machines whose network ends here."""
    agent = new_agent(made)
    agent.pairing = str(make_pairing(str(agent.state), HOST, agent.port))
    agent.start()
    return agent


def pull(agent: Agent, *options: str, prefix: str = "") -> str:
    """Return the lines of a script that pull onto ``/config``."""
    return (
        f"export PLEXODUS_PAIRING='{agent.pairing}' PLEXODUS_TARGET=/config PLEXODUS_NO_CUTOVER=1\n"
        f"{prefix} plexodus-puller pull {' '.join(options)} 2>/run/said || code=$?\n"
        "cat /run/said; [ ${code:-0} = 0 ] || exit $code\n"
    )


def differences(agent: Agent, disk: Path, place: Path, *, owner: bool) -> list[str]:
    """Return how the library on ``disk`` differs from the source, by rsync and sha256sum."""
    with mounted(place, "-o", "loop", disk):
        assert sums_hold(place / "config")
        return rsync_differences(agent.library, place / "config" / "Library", owner=owner)


def nothing_is_there(disk: Path, place: Path) -> bool:
    """Return whether no library is on ``disk``, not even a part of one."""
    with mounted(place, "-o", "loop", disk):
        return not (place / "config" / "Library").exists()


def test_nfs_as_root(agent: Agent, programs: Path, disk: Path, tmp_path: Path) -> None:
    """NFS 4.2 with no_root_squash keeps everything, owners too, and a second pull asks nothing."""
    server = NFS_SERVER.format(owner="0:0", options="no_root_squash")
    script = f"{server}{NFS_4}{pull(agent)}{pull(agent)}"
    done = run_in_machine(tmp_path, programs, disk, script)
    assert done.code == 0, done.text
    assert differences(agent, disk, tmp_path / "seen", owner=True) == []
    assert "everything is there" in done.text
