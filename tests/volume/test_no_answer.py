"""A call that fails is no answer: nothing counts as absent that cannot be read."""

from __future__ import annotations

import ast
import errno
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rig.two_sides import TwoSides
from rig.verified import grow
from rig.volume import fingerprint

import initpuller.volume
from initpuller.volume.cleanup import refuse_foreign
from initpuller.volume.decision import OnExisting
from initpuller.volume.filesystem import set_aside_path
from initpuller.volume.fitness.scratch_folder import scratch_folder
from initpuller.volume.fitness.volume_fit import probe_for_preflight
from initpuller.volume.foreign_library import check_wholeness, is_skeleton
from initpuller.volume.inspect import finished, look
from initpuller.volume.ownership import choose_ownership
from initpuller.volume.publish import publish
from initpuller.volume.publish.recheck import damage, withdraw_damaged
from initpuller.volume.publish.unpublish import is_to_be_taken_back
from initpuller.volume.reclaim import make_room
from initpuller.volume.records.pull_record import PullRecord
from initpuller.volume.records.record_file import drop_files
from initpuller.volume.records.target import open_layout
from initpuller.volume.staging.staging import delta_base
from shared.checks import Outcome
from shared.errors import StorageError
from shared.presence import is_folder, is_there

if TYPE_CHECKING:
    from collections.abc import Callable

    from rig.verified import Verified

    from initpuller.volume.records.layout import Layout

CODES = [errno.EIO, errno.ESTALE, errno.EACCES]
CODE_NAMES = [errno.errorcode[code] for code in CODES]


def fail_at(patched: pytest.MonkeyPatch, path: str, code: int) -> None:
    """Have each stat of ``path`` fail."""
    for name in ("stat", "lstat"):
        real = getattr(os, name)

        def failing(
            at: object,
            *args: object,
            real: Callable[..., object] = real,
            **kwargs: object,
        ) -> object:
            """Fail at the one path."""
            if at == path:
                raise OSError(code, os.strerror(code), path)
            return real(at, *args, **kwargs)

        patched.setattr(os, name, failing)


def _scratch(layout: Layout) -> None:
    with scratch_folder(layout):
        pass


def _other_library(layout: Layout) -> None:
    record = PullRecord(layout)
    snapshot = record.current.snapshot
    library = type(snapshot.library)("other", "Library", "vm", "/other")
    theirs = type(snapshot)(
        snapshot.id, "cold", library, snapshot.created, 1, 0, 0, 0, 100, snapshot.exclude
    )
    refuse_foreign(record, theirs, sets_aside=True)


def _staged(layout: Layout) -> str:
    return layout.staged("Library")


def _final(layout: Layout) -> str:
    return layout.library("Library")


STEPS: dict[str, tuple[Callable[[Layout], object], Callable[[Layout], str]]] = {
    "is it staged": (lambda at: look(PullRecord(at), OnExisting.SKIP), _staged),
    "is the name taken": (lambda at: look(PullRecord(at), OnExisting.SKIP), _final),
    "is it out of the way": (
        lambda at: publish.displace(PullRecord(at), OnExisting.SKIP),
        _final,
    ),
    "is it to be set aside": (
        lambda at: publish.displace(PullRecord(at), OnExisting.SET_ASIDE),
        _final,
    ),
    "is it to be renamed": (lambda at: publish.publish(PullRecord(at), lambda: None), _staged),
    "where it is compared": (lambda at: damage(PullRecord(at), ""), _staged),
    "where its list is": (
        lambda at: damage(PullRecord(at), ""),
        lambda at: at.manifest(PullRecord(at).planned.snapshot),
    ),
    "is it withdrawn": (
        lambda at: withdraw_damaged(PullRecord(at), OnExisting.SET_ASIDE),
        _final,
    ),
    "is it a delta": (lambda at: delta_base(PullRecord(at)), _staged),
    "is it theirs": (_other_library, lambda at: at.staging),
    "where to probe": (_scratch, lambda at: at.staging),
    "is a volume there": (lambda at: open_layout(at.target), lambda at: at.target),
}


@pytest.mark.parametrize("code", CODES, ids=CODE_NAMES)
@pytest.mark.parametrize("step", STEPS)
def test_step_that_cannot_read_the_volume(
    tmp_path: Path, verified: Verified, step: str, code: int
) -> None:
    """It fails with the system's words, and changes nothing on the volume."""
    layout = verified.copy(tmp_path / "volume")
    os.mkdir(_final(layout))
    Path(_final(layout), "mark").write_text("not ours")
    ask, where = STEPS[step]
    before, path = fingerprint(Path(layout.target)), where(layout)
    with pytest.MonkeyPatch.context() as patched:
        fail_at(patched, path, code)
        with pytest.raises(StorageError) as failed:
            ask(layout)
    assert os.strerror(code) in str(failed.value)
    after = fingerprint(Path(layout.target))
    assert {path: after.get(path) for path in before} == before


@pytest.mark.parametrize("code", CODES, ids=CODE_NAMES)
def test_receipt_beside_a_library_that_cannot_be_read(
    tmp_path: Path, verified: Verified, code: int
) -> None:
    """The run fails. It neither counts as done, nor is the library lost."""
    layout = verified.copy(tmp_path / "volume")
    publish.publish(PullRecord(layout), lambda: None)
    for ask in (
        lambda: finished(layout),
        lambda: look(PullRecord(layout), OnExisting.SKIP),
    ):
        with pytest.MonkeyPatch.context() as patched:
            fail_at(patched, _final(layout), code)
            with pytest.raises(StorageError):
                ask()
    assert finished(layout) is not None


@pytest.mark.parametrize("code", CODES, ids=CODE_NAMES)
@pytest.mark.parametrize("ask", [is_there, is_folder, is_skeleton, check_wholeness])
def test_question_that_is_not_answered(
    tmp_path: Path, ask: Callable[[str], object], code: int
) -> None:
    """A library that cannot be read is neither absent, nor empty, nor whole."""
    library = tmp_path / "Library"
    (library / "Application Support").mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patched:
        fail_at(patched, str(library), code)
        with pytest.raises(OSError, match=r"Library"):
            ask(str(library))


def test_question_that_is_answered(tmp_path: Path) -> None:
    """Only a name that is missing, or below a file, is absent. A symlink to nothing is there."""
    (tmp_path / "file").touch()
    (tmp_path / "nowhere").symlink_to("missing")
    (tmp_path / "link").symlink_to(tmp_path)
    there = {name for name in os.listdir(tmp_path) if is_there(str(tmp_path / name))}
    assert there == {"file", "nowhere", "link"}
    assert not is_there(str(tmp_path / "missing"))
    assert not is_there(str(tmp_path / "file" / "below"))
    assert [is_folder(str(tmp_path / name)) for name in ("link", "file", "nowhere")] == [
        True,
        False,
        False,
    ]


def test_name_that_may_be_taken(tmp_path: Path) -> None:
    """A name whose stat fails is not free: what is there could be replaced."""

    def fail(*_: object, **__: object) -> None:
        """Fail as a disk does."""
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "stat", fail)
        patched.setattr(os, "lstat", fail)
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            set_aside_path(str(tmp_path / "Library"))


def test_record_that_cannot_be_read_is_removed(tmp_path: Path) -> None:
    """A record that is not valid any more does not stay because a stat of it fails."""
    record = tmp_path / "receipt.json"
    record.touch()
    with pytest.MonkeyPatch.context() as patched:
        fail_at(patched, str(record), errno.EIO)
        drop_files(str(record), str(tmp_path / "missing"))
    assert os.listdir(tmp_path) == []


def test_rehearsal_that_cannot_be_read(
    tmp_path: Path, verified: Verified, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not taken for one that was moved back."""
    layout = verified.copy(tmp_path / "volume")
    publish.publish(PullRecord(layout), lambda: None)
    path = Path(layout.receipt)
    path.write_text(path.read_text().replace('"rehearsal": false', '"rehearsal": true'))
    assert is_to_be_taken_back(PullRecord(layout), rehearse=False)
    fail_at(monkeypatch, _final(layout), errno.EIO)
    with pytest.raises(StorageError):
        is_to_be_taken_back(PullRecord(layout), rehearse=False)


def test_room_for_records_that_cannot_be_read(
    tmp_path: Path, verified: Verified, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that may be on a full volume fails, and does not go without room for its records."""
    layout = verified.copy(tmp_path / "volume")
    os.unlink(layout.state)
    fail_at(monkeypatch, layout.staging, errno.EIO)
    with pytest.raises(StorageError):
        make_room(PullRecord(layout))


def test_preflight_of_a_volume_that_cannot_be_read(
    tmp_path: Path, verified: Verified, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check fails, and does not remove the lock of a volume that has one."""
    layout = verified.copy(tmp_path / "volume")
    Path(layout.lock).touch()
    with monkeypatch.context() as patched:
        fail_at(patched, layout.folder, errno.EIO)
        [check] = probe_for_preflight(layout, choose_ownership(None))
    assert check.outcome is Outcome.FAILURE
    assert os.strerror(errno.EIO) in check.found
    assert os.path.exists(layout.lock)


def test_file_in_staging_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file did not get lost; one behind a symlink does not count, whatever it is."""
    sides = TwoSides(tmp_path, grow(tmp_path / "vm" / "Library"))
    staging = sides.bring(sides.scan())
    name = "Library/Plex/poster"
    assert staging.regular_file(name) == f"{sides.layout.staging}/{name}"
    assert staging.regular_file("Library/Plex") is None
    assert staging.regular_file("Library/Links/link") is None
    assert staging.regular_file("Library/missing/file") is None
    with monkeypatch.context() as patched:
        patched.setattr("initpuller.volume.filesystem.os.stat", _fail)
        with pytest.raises(StorageError, match=os.strerror(errno.EIO)):
            staging.regular_file(name)
    shutil.move(sides.staged / "Plex", tmp_path / "elsewhere")
    (sides.staged / "Plex").symlink_to(tmp_path / "elsewhere")
    assert staging.regular_file(name) is None
    staging.close()


def _fail(*_: object, **__: object) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_no_module_asks_without_an_answer() -> None:
    """No module of the volume uses a function that returns False for a failed call."""
    silent = {"exists", "lexists", "isdir", "isfile", "islink", "access", "is_dir", "is_file"}
    allowed = {("cleanup.py", "is_file"), ("space.py", "is_file"), ("foreign_library.py", "is_dir")}
    found = set()
    for path in Path(initpuller.volume.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in silent:
                found.add((path.name, node.attr))
    assert found == allowed  # of os.DirEntry, which raises what it cannot answer
