"""A computer with Debian's kernel, emulated by qemu: what the kernel of this machine lacks.

``tests/make-machine`` makes its system disk, which no run changes. The puller of the image is on a
second disk. ``/dev/vdd`` is the test's own disk, whose ext4 is mounted at ``/disk``. The
network leads to this machine's loopback addresses, as :data:`HOST`.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rig.cluster import containers
from rig.virtual_machine import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

HOST = "10.0.2.2"
_MACHINE = REPOSITORY / "build" / "machine"
_SECTOR = 512
_SECONDS = 240
_ENDED = "plexodus test ended with "
_BEGIN = """\
export PATH=/opt/plexodus/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mount -t proc proc /proc
for each in /run /tmp /var/lib/nfs
do mount -t tmpfs tmpfs $each
done
mkdir -p /run/rpc_pipefs /run/lock /var/lib/nfs/v4recovery
touch /var/lib/nfs/etab /var/lib/nfs/rmtab
mount -o ro /dev/vdc /opt/plexodus
mount /dev/vdd /disk
mkdir /dev/shm; mount -t tmpfs tmpfs /dev/shm
mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up
ip link set eth0 up
ip address add 10.0.2.15/24 dev eth0
ip route add default via 10.0.2.2
(
set -e
"""
_END = f"""
)
echo "{_ENDED}$?"
cd /
umount -f /config 2>/dev/null
umount /disk
sync
echo o > /proc/sysrq-trigger
sleep 60
"""


@dataclass(frozen=True)
class Ended:
    """How a script ended: its exit code, and the text of the machine's console."""

    code: int
    text: str


def make_program_disk(image: Path) -> None:
    """Make a disk with the puller of the image, which is below ``/opt/plexodus`` there."""
    tree = image.with_suffix("")
    tree.mkdir()
    made = _output("buildah", "from", containers.image("puller"))
    try:
        mounted = _output("buildah", "mount", made)
        subprocess.run(["cp", "-a", f"{mounted}/opt/plexodus/.", tree], check=True)
    finally:
        _output("buildah", "rm", made)
    subprocess.run(["mkfs.ext4", "-q", "-d", tree, image, "300M"], check=True)


def run_in_machine(
    folder: Path, programs: Path, disk: Path, script: str, *, disk_rate: int = 0
) -> Ended:
    """Start a machine with the image ``disk``, and run ``script`` in it as root, by ``sh -e``.

    Args:
        folder: gets the script as a disk.
        programs: what :func:`make_program_disk` made.
        disk: an ext4, which keeps what the script writes to it.
        script: its last command's exit code is the result.
        disk_rate: bytes a second that ``disk`` takes and gives; 0 for no limit.
    """
    lines = f"{_BEGIN}{script}{_END}".encode()
    (folder / "script.img").write_bytes(lines + b"\n" * (-len(lines) % _SECTOR))
    drives = (
        (_MACHINE / "disk.img", "snapshot=on"),
        (folder / "script.img", "readonly=on"),
        (programs, "readonly=on"),
        (disk, f"snapshot=off,throttling.bps-total={disk_rate}"),
    )
    kernel = "root=/dev/vda rw console=ttyS0 quiet net.ifnames=0 init=/bin/sh -- /dev/vdb"
    done = subprocess.run(
        [
            *("qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2"),
            *("-m", "1024", "-display", "none", "-serial", "stdio", "-no-reboot"),
            *("-kernel", _MACHINE / "vmlinuz", "-initrd", _MACHINE / "initrd", "-append", kernel),
            *(
                word
                for path, how in drives
                for word in ("-drive", f"file={path},if=virtio,format=raw,{how}")
            ),
            *("-nic", "user,model=virtio-net-pci"),
        ],
        check=True,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_SECONDS,
    )
    text, _, code = done.stdout.rpartition(_ENDED)
    return Ended(int(code.split()[0]), text)


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
