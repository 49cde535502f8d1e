"""A volume whose filesystem cannot lock files: NFS 3 without a lock service, some FUSE volumes."""

from __future__ import annotations

import errno
import fcntl
import os
from typing import TYPE_CHECKING

import pytest
from rig.programs import Agent, running
from rig.volume import grow_tiny, pull

from initpuller.volume.filesystem import mount_of
from shared.program.exit_codes import ExitCode

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """One agent with a tiny library for all tests."""
    place = tmp_path_factory.mktemp("lock")
    agent = Agent(place / "state", grow_tiny(place / "vm" / "Library"), place / "agent.log")
    agent.pair()
    with running(agent):
        yield agent


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF])
def test_lock_refused_by_the_filesystem(
    target: Path, agent: Agent, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Exit 15 names the mount and a remedy, and no request is made."""
    real = fcntl.flock

    def refuse(fd: int, operation: int) -> None:
        if os.readlink(f"/proc/self/fd/{fd}").startswith(str(target)):
            raise OSError(code, os.strerror(code))
        real(fd, operation)

    monkeypatch.setattr(fcntl, "flock", refuse)
    requests = agent.requests()

    done = pull(target, agent)

    assert done.code == ExitCode.STORAGE, done.text
    assert mount_of(str(target)) in done.reason()
    assert os.strerror(code) in done.reason()
    assert "Use a volume with working locks" in done.reason()
    assert "report it" not in done.text
    assert agent.requests() == requests
    assert not (target / "Library").exists()


def test_mount_is_named_with_its_type(tmp_path: Path) -> None:
    """The mount point comes unescaped, with the type of what is mounted on top."""
    listing = tmp_path / "mountinfo"
    listing.write_text(
        "1 0 0:1 / / rw - ext4 /dev/sda rw\n2 1 0:2 / /a\\040b rw - tmpfs none rw\n"
        "3 1 0:3 / / rw shared:1 - nfs server:/x rw\n"
    )

    assert mount_of("/", str(listing)) == "/ (nfs)"
    assert mount_of("/proc/self").startswith("/proc (proc)")
