"""A volume that cannot be read or written ends a pull with exit code 15, never as a bug."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest
from rig.oracle import rsync_differences
from rig.volume import pull

from shared.program.exit_codes import ExitCode

if TYPE_CHECKING:
    from pathlib import Path

    from rig.programs import Agent

PLACES = [
    "initpuller.pull.transfer.wrong_sums",  # reads digests, while it verifies
    "initpuller.pull.passes.Passes._read_manifest",
    "initpuller.pull.recipe.look",
    "initpuller.pull.recipe.make_room",
    "initpuller.pull.recipe._publish",
]


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE], ids=["EIO", "ESTALE"])
@pytest.mark.parametrize("place", PLACES)
def test_volume_fails_where_nobody_expects_it(
    target: Path, agent: Agent, monkeypatch: pytest.MonkeyPatch, place: str, code: int
) -> None:
    """The exit code says so, with the system's words; the next pull moves the library."""

    def fail(*_: object, **__: object) -> None:
        """Fail in the place of a function that reads or writes the volume."""
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched:
        patched.setattr(place, fail)
        failed = pull(target, agent)

    assert failed.code == ExitCode.STORAGE, failed.text
    assert os.strerror(code) in failed.reason()
    assert not (target / "Library").exists()
    done = pull(target, agent)
    assert done.code == ExitCode.OK, done.text
    assert rsync_differences(agent.library, target / "Library") == []


def test_error_that_no_disk_causes(
    target: Path, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any other error of the system stays a bug with a traceback."""

    def fail(*_: object, **__: object) -> None:
        """Fail as a wrong descriptor does."""
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    monkeypatch.setattr("initpuller.pull.transfer.wrong_sums", fail)
    assert pull(target, agent).code == ExitCode.INTERNAL
