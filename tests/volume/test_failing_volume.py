"""A volume that cannot be read or written ends a pull with exit code 15, never as a bug."""

from __future__ import annotations

import errno
import os
import pkgutil
from typing import TYPE_CHECKING

import pytest
from rig.oracle import rsync_differences
from rig.volume import pull

from shared.program.exit_codes import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable
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


STEPS = {
    "every sync": "shared.durable._fsync",
    "the rename": "initpuller.volume.publish.publish.fsync_folder",
    "its folder in staging": "initpuller.volume.publish.publish.fsync_folder",
    "the receipt": "initpuller.volume.publish.publish.save_record",
    "the receipt's folder": "shared.durable.fsync_folder",
}


@pytest.mark.parametrize("existing", [False, True], ids=["empty volume", "set aside"])
@pytest.mark.parametrize("step", STEPS)
def test_volume_fails_when_the_library_has_its_name(
    target: Path, agent: Agent, monkeypatch: pytest.MonkeyPatch, step: str, *, existing: bool
) -> None:
    """After an EIO at the publication, the volume has what it had before, and no receipt."""
    if existing:
        (target / "Library").mkdir()
        (target / "Library" / "mark").write_text("not ours")
    place, calls = STEPS[step], list[int]()
    real = pkgutil.resolve_name(place)

    def fail(*arguments: object, **named: object) -> object:
        """Fail at a step that follows the rename, and mostly once."""
        is_published = (target / "Library" / "large").exists()
        calls.extend([1] if is_published else [])
        is_first = is_published and len(calls) == (2 if step == "its folder in staging" else 1)
        if is_first or (calls and step == "every sync"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(*arguments, **named)

    aside = ("--on-existing", "set-aside")
    with monkeypatch.context() as patched:
        patched.setattr(place, fail)
        failed = pull(target, agent, *aside)

    assert failed.code == ExitCode.STORAGE, failed.text
    left = {str(path.relative_to(target)) for path in target.glob("Library*/*")}
    assert left == ({"Library/mark"} if existing else set())
    assert not (target / ".plexodus" / "receipt.json").exists()
    done = pull(target, agent, *aside)
    assert done.code == ExitCode.OK, done.text
    assert rsync_differences(agent.library, target / "Library") == []
    assert len(list(target.glob("Library.set-aside-*/mark"))) == existing


@pytest.mark.parametrize("existing", [False, True], ids=["empty volume", "set aside"])
def test_receipt_that_cannot_be_removed(
    target: Path, agent: Agent, monkeypatch: pytest.MonkeyPatch, *, existing: bool
) -> None:
    """A receipt is never left beside no library, or beside one that is not ours."""
    if existing:
        (target / "Library").mkdir()
        (target / "Library" / "mark").write_text("not ours")
    aside = ("--on-existing", "set-aside")
    real = pkgutil.resolve_name("shared.durable.fsync_folder")

    def fail(*arguments: object) -> object:
        """Fail from the rename of the receipt on."""
        if (target / ".plexodus" / "receipt.json").exists():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr("shared.durable.fsync_folder", fail)
        patched.setattr("initpuller.volume.publish.publish._drop_receipt", fail)
        failed = pull(target, agent, *aside)

    assert failed.code == ExitCode.STORAGE, failed.text
    assert rsync_differences(agent.library, target / "Library") == []
    assert pull(target, agent, *aside).code == ExitCode.OK
    assert rsync_differences(agent.library, target / "Library") == []
    assert len(list(target.glob("Library.set-aside-*/mark"))) == existing


@pytest.mark.parametrize(("call", "existing"), [(1, False), (1, True), (2, True)])
def test_rename_whose_answer_is_lost(
    target: Path, agent: Agent, monkeypatch: pytest.MonkeyPatch, call: int, *, existing: bool
) -> None:
    """A rename that was done and failed anyway, as on NFS, is undone."""
    if existing:
        (target / "Library").mkdir()
        (target / "Library" / "mark").write_text("not ours")
    aside, calls = ("--on-existing", "set-aside"), list[int]()

    def lose(name: str) -> Callable[..., None]:
        """Return the rename ``name``, which reports a failure at the wanted call."""
        real = pkgutil.resolve_name(name)

        def rename(now: str, then: str) -> None:
            """Rename."""
            real(now, then)
            if {now, then} & {str(target / "Library")}:
                calls.append(1)
                if len(calls) == call:
                    raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))

        return rename

    with monkeypatch.context() as patched:
        for name in ("os.rename", "rename_noreplace"):
            place = f"initpuller.volume.publish.publish.{name}"
            patched.setattr(place, lose(place))
        failed = pull(target, agent, *aside)

    assert failed.code == ExitCode.STORAGE, failed.text
    left = {str(path.relative_to(target)) for path in target.glob("Library*/*")}
    assert left == ({"Library/mark"} if existing else set())
    done = pull(target, agent, *aside)
    assert done.code == ExitCode.OK, done.text
    assert rsync_differences(agent.library, target / "Library") == []


def test_volume_fails_after_the_receipt(
    target: Path, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library is there, so the pull ends with 0; the next run removes what is left."""

    def fail(*_: object) -> None:
        """Fail as a disk does."""
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr("initpuller.volume.cleanup.drop_work", fail)
        done = pull(target, agent)

    assert done.code == ExitCode.OK, done.text
    assert rsync_differences(agent.library, target / "Library") == []
    assert (target / ".plexodus" / "state.json").exists()
    assert pull(target, agent).code == ExitCode.OK
    assert not (target / ".plexodus" / "state.json").exists()


def test_error_that_no_disk_causes(
    target: Path, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any other error of the system stays a bug with a traceback."""

    def fail(*_: object, **__: object) -> None:
        """Fail as a wrong descriptor does."""
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    monkeypatch.setattr("initpuller.pull.transfer.wrong_sums", fail)
    assert pull(target, agent).code == ExitCode.INTERNAL
