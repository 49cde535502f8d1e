"""A library that has its final name, but no receipt yet: compared again, and never changed."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rig.two_sides import TwoSides
from rig.verified import assembled, grow
from rig.volume import everything

from initpuller.volume.decision import OnExisting
from initpuller.volume.fidelity import AttributePolicy
from initpuller.volume.ownership import Ownership
from initpuller.volume.publish import edit_file, publish
from initpuller.volume.publish.publish import Observations, prepare
from initpuller.volume.publish.recheck import damage, withdraw_damaged
from initpuller.volume.records import pull_record
from initpuller.volume.records.pull_record import PullRecord
from initpuller.volume.records.record_file import save_record
from shared import durable
from shared.errors import StorageError, TargetConflict

if TYPE_CHECKING:
    from collections.abc import Callable

    from rig.verified import Verified

    from initpuller.volume.records.layout import Layout
    from initpuller.volume.records.receipt import Receipt


def _linked(library: Path, name: str) -> None:
    """Have a symlink in the place of a folder, which is elsewhere now."""
    elsewhere = library.parent / "elsewhere"
    shutil.move(library / name, elsewhere)
    (library / name).symlink_to(elsewhere)


def _file(library: Path) -> None:
    """Have a file in the place of an empty folder."""
    (library / "Cache").rmdir()
    (library / "Cache").write_text("not a folder")


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "symlink for an empty folder": (lambda top: _linked(top, "Cache"), "Cache: is no folder"),
    "symlink for a folder": (lambda top: _linked(top, "Links"), "Links: is no folder"),
    "symlink for all": (lambda top: _linked(top.parent, "Library"), "is missing, or no file"),
    "file for an empty folder": (_file, "Cache: is no folder"),
    "no empty folder": (lambda top: (top / "Cache").rmdir(), "Cache: is missing"),
    "no folder": (lambda top: shutil.rmtree(top / "Links"), "Links: is missing"),
    "a mode": (lambda top: (top / "Cache").chmod(0o700), "Cache: has mode 700"),
    "an xattr": (
        lambda top: os.removexattr(top / "Plex" / "Metadata", "user.kept"),
        "Metadata: has other xattrs",
    ),
    "a stranger": (lambda top: (top / "Cache" / "new").touch(), "new: does not belong here"),
}


def _renamed(verified: Verified, place: Path) -> Layout:
    """Return a volume of a puller that was killed before the receipt."""
    layout = verified.copy(place)
    os.rename(layout.staged("Library"), layout.library("Library"))
    return layout


@pytest.mark.parametrize("kind", DAMAGES)
def test_placed_library_that_somebody_has_changed(
    tmp_path: Path, verified: Verified, kind: str
) -> None:
    """The difference is reported, the pull is refused, and nothing of it is changed."""
    layout = _renamed(verified, tmp_path / "volume")
    assert damage(PullRecord(layout), "") == []
    inflict, said = DAMAGES[kind]
    inflict(Path(layout.library("Library")))
    before = everything(Path(layout.target))
    found = damage(PullRecord(layout), "")
    assert any(said in line for line in found), found
    with pytest.raises(TargetConflict, match="not what was verified any more"):
        withdraw_damaged(PullRecord(layout), OnExisting.SKIP)
    assert everything(Path(layout.target)) == before


def test_placed_library_whose_folders_cannot_be_opened(
    tmp_path: Path, verified: Verified, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are not opened by force: the pull fails, and the next one tries again."""
    layout = _renamed(verified, tmp_path / "volume")
    before, real = everything(Path(layout.target)), os.open

    def refuse(path: object, *args: object, **kwargs: object) -> object:
        """Refuse the empty folder."""
        if path == b"Cache":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(path, *args, **kwargs)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refuse)
        patched.setattr(os, "chmod", None)
        with pytest.raises(StorageError, match="Permission denied"):
            damage(PullRecord(layout), "")
    assert everything(Path(layout.target)) == before


class Order:
    """The order of calls that set attributes, and of those that make something durable."""

    def __init__(self, patched: pytest.MonkeyPatch) -> None:
        self.seen: list[str] = []
        self._patched = patched

    def watch(self, holder: object, name: str, what: str) -> None:
        """Add ``what`` at each call."""
        real = getattr(holder, name)

        def call(*args: object, **kwargs: object) -> object:
            """Note the call."""
            self.seen.append(what)
            return real(*args, **kwargs)

        self._patched.setattr(holder, name, call)


def _unprivileged() -> AttributePolicy:
    return AttributePolicy(Ownership((os.geteuid(), os.getegid()), privileged=False))


def test_modes_of_folders_are_durable_before_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power loss after the record finds the modes that were set without privileges."""
    library = grow(tmp_path / "vm" / "Library")
    (library / "Cache").chmod(0o555)
    sides = TwoSides(tmp_path, library)
    sides.policy = _unprivileged()
    staging, order = assembled(sides), Order(monkeypatch)
    order.watch(os, "chmod", "set")
    order.watch(durable._libc, "syncfs", "sync")
    order.watch(pull_record, "save_record", "record")
    prepare(staging, "publishing", Observations(), displace=False)
    staging.close()
    assert order.seen == ["set", "sync", "record"]
    assert stat.S_IMODE((sides.staged / "Cache").stat().st_mode) == 0o555


def test_attributes_set_again_are_durable(
    tmp_path: Path, verified: Verified, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A comparison of staging sets the attributes of folders: they are synced at its end."""
    layout, order = verified.copy(tmp_path / "volume"), Order(monkeypatch)
    order.watch(os, "utime", "set")
    order.watch(durable._libc, "syncfs", "sync")
    assert damage(PullRecord(layout), "") == []
    assert order.seen[-2:] == ["set", "sync"]


def test_mode_of_the_library_is_durable_before_the_receipt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without privileges, the library's own folder gets its mode last."""
    library = grow(tmp_path / "vm" / "Library")
    library.chmod(0o555)
    sides = TwoSides(tmp_path, library)
    sides.policy = _unprivileged()
    staging, order = assembled(sides), Order(monkeypatch)
    prepare(staging, "publishing", Observations(), displace=False)
    staging.close()
    order.watch(os, "chmod", "set")
    order.watch(os, "fchmod", "set")
    order.watch(os, "fsync", "sync")
    order.watch(publish, "save_record", "receipt")
    publish.publish(staging.record, lambda: None)
    at = order.seen.index("receipt")
    assert order.seen[at - 2 : at + 1] == ["set", "sync", "receipt"]
    assert stat.S_IMODE(os.stat(sides.layout.library("Library")).st_mode) == 0o555


def test_time_of_an_amended_files_folder_is_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder gets its time back after a file in it was replaced, and keeps it."""
    sides = TwoSides(tmp_path, grow(tmp_path / "vm" / "Library"))
    staging, order = assembled(sides), Order(monkeypatch)
    before = (sides.staged / "Plex" / "Metadata").stat().st_mtime_ns
    order.watch(os, "utime", "set")
    order.watch(os, "fsync", "sync")
    order.watch(edit_file, "_replace_sum", "list")
    edit_file.amend(staging, "Library/Plex/Metadata/large", bytes.upper)
    staging.close()
    at = order.seen.index("list")
    assert order.seen[at - 2 : at] == ["set", "sync"]
    assert (sides.staged / "Plex" / "Metadata").stat().st_mtime_ns == before


def test_rename_of_a_killed_run_is_durable_before_the_receipt(
    tmp_path: Path, verified: Verified, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was killed right after its rename has not synced it: the next one does."""
    layout, synced = _renamed(verified, tmp_path / "volume"), list[str]()

    def sync(path: str) -> None:
        """Note the folder."""
        synced.append(path)
        durable.fsync_folder(path)

    def save(path: str, receipt: Receipt) -> None:
        """Require that the volume's folder was synced before."""
        assert layout.target in synced
        save_record(path, receipt)

    monkeypatch.setattr(publish, "fsync_folder", sync)
    monkeypatch.setattr(publish, "save_record", save)
    publish.publish(PullRecord(layout), lambda: None)
    assert Path(layout.receipt).exists()


@pytest.mark.parametrize("note", ["migrated.json", "trash-was-on"])
def test_notes_of_an_earlier_move_are_removed_before_the_receipt(
    tmp_path: Path, verified: Verified, monkeypatch: pytest.MonkeyPatch, note: str
) -> None:
    """No note about another library's Plex is beside the receipt, even after a power loss."""
    layout = verified.copy(tmp_path / "volume")
    path, synced = Path(layout.folder, note), list[bool]()
    path.touch()

    def sync(folder: str) -> None:
        """Note whether a sync of the folder makes the removal durable."""
        synced.append(folder == layout.folder and not path.exists())
        durable.fsync_folder(folder)

    def save(receipt_path: str, receipt: Receipt) -> None:
        """Require that it did."""
        assert any(synced)
        save_record(receipt_path, receipt)

    monkeypatch.setattr(publish, "fsync_folder", sync)
    monkeypatch.setattr(publish, "save_record", save)
    publish.publish(PullRecord(layout), lambda: None)
    assert Path(layout.receipt).exists()
