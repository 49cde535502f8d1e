"""Volumes of real NFS and SMB servers, in an emulated machine: exact moves, or refused at once."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
from rig.emulated_machine import HOST, make_program_disk, run_in_machine
from rig.mounts import mounted
from rig.oracle import rsync_differences, sums_hold
from rig.plex.commands import SERVER

from agent.server.credentials import make_pairing
from bench.plexlibrary import LibraryShape, make_library

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
modprobe lockd
modprobe nfsd
echo 10 > /proc/sys/fs/nfs/nlm_grace_period
mount -t nfsd nfsd /proc/fs/nfsd
echo 10 > /proc/fs/nfsd/nfsv4gracetime
exportfs -o rw,fsid=0,no_subtree_check,{options} 127.0.0.1:/disk/config
rpc.mountd
rpc.nfsd -V 3 -V 4 2
mount -t nfs -o {version} 127.0.0.1:{path} /config
"""
SMB = """\
mkdir /disk/config
for each in /var/lib/samba /var/log /var/cache
do mount -t tmpfs tmpfs $each
done
mkdir -p /var/lib/samba/private /var/log/samba /var/cache/samba
cat > /tmp/smb.conf <<END
[global]
map to guest = Bad User
[config]
path = /disk/config
writable = yes
guest ok = yes
force user = root
END
smbd -s /tmp/smb.conf -D
sleep 3
mount -t cifs //127.0.0.1/config /config -o guest,vers=3.1.1
"""
NFS_4 = {"version": "vers=4.2", "path": "/"}
NFS_3 = {"version": "vers=3", "path": "/disk/config"}
GROUP = "/sys/fs/cgroup/plexodus"
LIMITED = f"""\
echo +memory > /sys/fs/cgroup/cgroup.subtree_control
mkdir {GROUP}
echo {{limit}} > {GROUP}/memory.max
echo 0 > {GROUP}/memory.swap.max
(echo 0 > {GROUP}/cgroup.procs
begun=$(date +%s)
{{pull}}
echo "seconds $(($(date +%s) - begun))")
echo "peak $(cat {GROUP}/memory.peak)"
cat {GROUP}/memory.events
"""
SUMS_HOLD = "cd /config; sha256sum --check --quiet --strict .plexodus/SHA256SUMS\n"
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
def agent(plex_library: Path, new_agent: Callable[[Path], Agent]) -> Agent:
    """Return an agent that serves a Plex library to machines whose network ends here."""
    return reachable(new_agent(plex_library))


def reachable(agent: Agent) -> Agent:
    """Start ``agent``, paired with an address that leads to it from the machine."""
    agent.pairing = str(make_pairing(str(agent.state), HOST, agent.port))
    agent.start()
    return agent


def pull(agent: Agent, *options: str, prefix: str = "") -> str:
    """Return the lines of a script that pull onto ``/config``, and end the script if that fails."""
    return (
        f"export PLEXODUS_PAIRING='{agent.pairing}' PLEXODUS_TARGET=/config PLEXODUS_NO_CUTOVER=1\n"
        f"{prefix} plexodus-puller pull {' '.join(options)} 2>/run/said || code=$?\n"
        "cat /run/said\n[ ${code:-0} = 0 ] || exit $code\n"
    )


def differences(agent: Agent, disk: Path, place: Path, *, owner: bool) -> list[str]:
    """Return how the library on ``disk`` differs from the source, by rsync and sha256sum."""
    with mounted(place, "-o", "loop", disk):
        assert sums_hold(place / "config")
        return rsync_differences(agent.library, place / "config" / "Library", owner=owner)


def is_there(disk: Path, place: Path) -> bool:
    """Return whether a library is on ``disk``, or a part of one."""
    with mounted(place, "-o", "loop", disk):
        return (place / "config" / "Library").exists()


@pytest.mark.parametrize("protocol", [NFS_3, NFS_4], ids=["3", "4.2"])
def test_nfs_as_root(
    agent: Agent, programs: Path, disk: Path, tmp_path: Path, protocol: dict[str, str]
) -> None:
    """NFS with no_root_squash keeps everything, owners too, and a second pull asks for nothing."""
    server = NFS_SERVER.format(owner="0:0", options="no_root_squash", **protocol)
    script = f"{server}{pull(agent)}{pull(agent)}"
    done = run_in_machine(tmp_path, programs, disk, script)
    assert done.code == 0, done.text
    assert "everything is there" in done.text
    assert differences(agent, disk, tmp_path / "seen", owner=True) == []


def test_nfs_as_root_whom_the_server_squashes(
    agent: Agent, programs: Path, disk: Path, tmp_path: Path
) -> None:
    """NFS with root_squash refuses root, says why, and publishes nothing."""
    server = NFS_SERVER.format(owner="1000:1000", options="root_squash", **NFS_4)
    done = run_in_machine(tmp_path, programs, disk, f"{server}{pull(agent)}")
    assert done.code == 15, done.text
    assert "root_squash takes root for nobody" in done.text
    assert not is_there(disk, tmp_path / "seen")


def test_nfs_as_the_owner(agent: Agent, programs: Path, disk: Path, tmp_path: Path) -> None:
    """NFS with root_squash takes the library from the owner of the folder, who owns it then."""
    server = NFS_SERVER.format(owner="1000:1000", options="root_squash", **NFS_4)
    done = run_in_machine(tmp_path, programs, disk, f"{server}{pull(agent, prefix=AS_PLEX)}")
    assert done.code == 0, done.text
    assert differences(agent, disk, tmp_path / "seen", owner=False) == []


def test_nfs_that_gives_every_file_one_owner(
    agent: Agent, programs: Path, disk: Path, tmp_path: Path
) -> None:
    """With all_squash, as on access points of EFS, the pull asks for --owner, and succeeds then."""
    options = "all_squash,anonuid=1000,anongid=1000"
    server = NFS_SERVER.format(owner="1000:1000", options=options, **NFS_4)
    refused = f"({pull(agent)}) && exit 1\n[ ! -e /config/Library ]\n"
    script = f"{server}{refused}{pull(agent, '--owner', '1000:1000')}"
    done = run_in_machine(tmp_path, programs, disk, script)
    assert done.code == 0, done.text
    assert "Give --owner with the owner that this volume enforces" in done.text
    assert differences(agent, disk, tmp_path / "seen", owner=False) == []


def test_slow_nfs_with_little_memory(
    new_agent: Callable[[Path], Agent], programs: Path, disk: Path, tmp_path: Path
) -> None:
    """A pod limited to 256 MiB writes more than that to an NFS volume of 20 MB/s, and lives.

    The pages that the client has not sent yet count as the pod's memory.
    """
    library = tmp_path / "Library"
    make_library(library, LibraryShape(2_000, 350_000_000, 20_000_000))
    agent = reachable(new_agent(library))
    server = NFS_SERVER.format(owner="0:0", options="no_root_squash", **NFS_4)
    limited = LIMITED.format(limit=256 << 20, pull=pull(agent))
    script = f"{server}{limited}"
    done = run_in_machine(tmp_path, programs, disk, script, disk_rate=20_000_000)
    assert done.code == 0, done.text
    assert "\noom_kill 0" in done.text.replace("\r", "")
    assert differences(agent, disk, tmp_path / "seen", owner=True) == []


def test_smb(agent: Agent, programs: Path, disk: Path, tmp_path: Path) -> None:
    """An SMB share keeps no modes and no symlinks, and is refused for that."""
    done = run_in_machine(tmp_path, programs, disk, f"{SMB}{pull(agent)}")
    assert done.code == 15, done.text
    assert "setting the mode to" in done.text
    assert "cannot be made (Operation not supported)" in done.text
    assert not is_there(disk, tmp_path / "seen")


def test_folder_that_folds_names(agent: Agent, programs: Path, disk: Path, tmp_path: Path) -> None:
    """On a case-folding ext4 a library arrives; one with names that would collide is refused."""
    folder = agent.library / SERVER / "Metadata"
    make = (
        "umount /disk\nmkfs.ext4 -q -F -O casefold /dev/vdd\nmount /dev/vdd /disk\n"
        "mkdir /disk/config\nchattr +F /disk/config\nmount --bind /disk/config /config\n"
    )
    done = run_in_machine(tmp_path, programs, disk, make + pull(agent) + SUMS_HOLD)
    assert done.code == 0, done.text
    for name in ("Poster", "poster"):
        (folder / name).touch()
    done = run_in_machine(tmp_path, programs, disk, f"{make}{pull(agent)}")
    assert done.code == 15, done.text
    assert "Poster" in done.text
