"""Hosts other than Debian 12 with Plex's package: without namespaces, with a snap, and newer."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
from rig.oracle import rsync_differences
from rig.plex.vm import (
    AGENT,
    PLEX,
    UNIT,
    give_plex,
    give_settings,
    have_plex_write,
    install_agent,
    is_running,
    pair_and_start,
    phase,
)
from rig.programs import Puller
from rig.virtual_machine import NEWER, VirtualMachine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.vm

SNAP = "snap.plexmediaserver.plexmediaserver.service"
SNAP_LIBRARY = "/var/snap/plexmediaserver/common/Library"
WITHOUT_CAPABILITY = """\
[Service]
User=plex
Group=plex
AmbientCapabilities=
CapabilityBoundingSet=
"""


def ready() -> str:
    """Return the status code of the agent's readiness. The VM is on this machine's network."""
    asked = ["curl", "-ksS", "-o", "/dev/null", "-w", "%{http_code}"]
    asked.append("https://127.0.0.1:8443/readyz")
    return subprocess.run(asked, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def container(tmp_path: Path) -> Iterator[VirtualMachine]:
    """Boot a container whose host refuses namespaces, as Proxmox does without nesting."""
    with VirtualMachine(tmp_path / "root", "--system-call-filter=~unshare") as machine:
        give_plex(machine)
        install_agent(machine)
        machine.run("systemctl", "start", UNIT)
        yield machine


def test_service_without_its_sandbox(container: VirtualMachine, tmp_path: Path) -> None:
    """Readiness, status and journal name it, and the documented drop-in moves the library."""
    pair_and_start(container)
    assert ready() == "503"
    status = container.run("plexodus-agent", "status").stdout
    assert "WITHOUT A SANDBOX" in status
    assert "docs/platforms/proxmox-lxc.md" in container.run("journalctl", "-u", AGENT).stdout

    container.write(f"/etc/systemd/system/{AGENT}.d/lxc.conf", WITHOUT_CAPABILITY)
    container.shell(
        "chown -R plex: /var/lib/plexodus /var/lib/plexodus-witness;"
        """ sed 's/"plexodus"/"plex"/' /usr/share/polkit-1/rules.d/50-plexodus.rules"""
        " > /etc/polkit-1/rules.d/50-plexodus-plex.rules;"
        " systemctl daemon-reload; systemctl restart polkit"
    )
    pairing = pair_and_start(container)
    assert ready() == "200"
    assert "WITHOUT" not in container.run("plexodus-agent", "status").stdout
    (tmp_path / "config").mkdir()
    puller = Puller(tmp_path / "config", tmp_path / "puller.log", pairing, cutover=True)
    done = puller.pull()
    assert done.code == 0, done.text
    assert phase(container) == "committed"
    assert not is_running(container)


@pytest.fixture
def snapped(tmp_path: Path) -> Iterator[VirtualMachine]:
    """Boot a VM with Plex where its snap has it: unit and folder."""
    with VirtualMachine(tmp_path / "root") as machine:
        give_plex(machine)
        install_agent(machine)
        machine.shell(
            f"cd /etc/systemd/system; mv {UNIT} {SNAP}; rm -r {UNIT}.d;"
            f" mkdir -p {SNAP_LIBRARY.rpartition('/')[0]};"
            f" mv '/srv/media server/plex/Library' {SNAP_LIBRARY};"
            f" systemctl daemon-reload; systemctl start {SNAP}"
        )
        yield machine


def test_snap_is_moved_and_stays_stopped(snapped: VirtualMachine, tmp_path: Path) -> None:
    """The library is found, and a refresh after the move starts nothing."""
    refused = snapped.run("plexodus-agent", "preflight", check=False).stdout
    assert SNAP in refused
    give_settings(snapped, f'unit = "{SNAP}"')
    pairing = pair_and_start(snapped)
    (tmp_path / "config").mkdir()
    puller = Puller(tmp_path / "config", tmp_path / "puller.log", pairing, cutover=True)
    done = puller.pull()
    assert done.code == 0, done.text
    assert not is_running(snapped, SNAP)
    source = snapped.root / SNAP_LIBRARY.lstrip("/")
    assert rsync_differences(source, tmp_path / "config" / "Library") == []
    snapped.run("systemctl", "restart", SNAP)  # as snapd does after a refresh
    assert not is_running(snapped, SNAP)
    snapped.run("plexodus-agent", "undo")
    assert is_running(snapped, SNAP)


@pytest.fixture
def newer(tmp_path: Path) -> Iterator[VirtualMachine]:
    """Boot a VM with a newer systemd and polkit, and a Plex at work."""
    with VirtualMachine(tmp_path / "root", base=NEWER) as machine:
        give_plex(machine)
        install_agent(machine)
        have_plex_write(machine)
        yield machine


def test_move_from_a_newer_system(newer: VirtualMachine, tmp_path: Path) -> None:
    """The unprivileged service stops and starts Plex there, and needs no user namespace.

    AppArmor of Ubuntu 24.04 restricts user namespaces that processes without privileges make.
    """
    pairing = pair_and_start(newer)
    assert ready() == "200"
    main = newer.show(AGENT, "MainPID")
    namespaces = newer.shell(f"readlink /proc/1/ns/user /proc/{main}/ns/user").split()
    assert len(set(namespaces)) == 1
    assert newer.shell(f"stat -c %U /proc/{main}").strip() == "plexodus"
    (tmp_path / "config").mkdir()
    puller = Puller(tmp_path / "config", tmp_path / "puller.log", pairing, cutover=True)
    done = puller.pull()
    assert done.code == 0, done.text
    assert not is_running(newer)
    source = newer.root / PLEX.lstrip("/") / "Library"
    assert rsync_differences(source, tmp_path / "config" / "Library") == []
    newer.reboot()
    newer.wait_for(f"systemctl is-active {AGENT}")
    assert not is_running(newer)
    newer.run("plexodus-agent", "undo")
    newer.wait_for(f"systemctl is-active {UNIT}")
