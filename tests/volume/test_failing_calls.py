"""Each call to the volume fails once in turn: no failure counts as an answer."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rig.failing_calls import FailingCall, failing_calls
from rig.oracle import omitted, rsync_differences, sums_hold
from rig.volume import fingerprint

from initpuller.volume.decision import Action, OnExisting
from initpuller.volume.filesystem import hash_file
from initpuller.volume.inspect import finished, look
from initpuller.volume.publish import publish
from initpuller.volume.publish.recheck import damage
from initpuller.volume.publish.unpublish import unpublish
from initpuller.volume.records.layout import Layout
from initpuller.volume.records.pull_record import PullRecord
from initpuller.volume.records.receipt import load_receipt
from initpuller.volume.records.record_file import save_record
from shared.errors import StorageError, storage_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rig.verified import Verified

    from initpuller.volume.records.receipt import Receipt

CODES = [
    pytest.param(errno.EIO, id="EIO"),
    pytest.param(errno.EACCES, id="EACCES"),
    pytest.param(errno.ESTALE, id="ESTALE", marks=pytest.mark.long),
    pytest.param(errno.ETIMEDOUT, id="ETIMEDOUT", marks=pytest.mark.long),
]
CALLS = (
    *("stat", "lstat", "fstat", "open", "unlink", "rename", "chmod", "fchmod", "utime", "fsync"),
    *("scandir", "listdir", "readlink", "listxattr", "ftruncate", "mkdir", "rmdir"),
)
ASIDE = OnExisting.SET_ASIDE


def faults(code: int) -> Iterator[tuple[int, FailingCall]]:
    """Yield each call in turn, as one that fails."""
    return failing_calls(code, CALLS)


def nothing(_: Layout) -> None:
    """Leave the library's name free."""


def skeleton(layout: Layout) -> None:
    """Give the library's name to folders without a file."""
    os.makedirs(os.path.join(layout.library("Library"), "Application Support"))


def foreign(layout: Layout) -> None:
    """Give the library's name to somebody's library."""
    os.mkdir(layout.library("Library"))
    Path(layout.library("Library"), "mark").write_text("not ours")


def planned(layout: Layout) -> None:
    """Record that somebody's library is to be set aside."""
    foreign(layout)
    publish.displace(PullRecord(layout), ASIDE)


def renamed(layout: Layout) -> None:
    """Leave what a puller leaves that was killed before the receipt."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(publish, "seal", _killed)
        with pytest.raises(KeyboardInterrupt):
            publish.publish(PullRecord(layout), lambda: None)


def renamed_beside(layout: Layout) -> None:
    """Leave the same, with somebody's library set aside."""
    planned(layout)
    renamed(layout)


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


def publish_verified(layout: Layout) -> bool:
    """Publish what was verified, as a run does right after its commit."""
    record = PullRecord(layout)
    publish.displace(record, ASIDE)
    publish.publish(record, lambda: None)
    return True


def next_run(layout: Layout) -> bool:
    """Do what a run does about what an earlier one has verified; return whether it is done."""
    if finished(layout) is not None:
        return True
    record = PullRecord(layout)
    if look(record, ASIDE) not in (Action.PUBLISH, Action.WRITE_RECEIPT) or damage(record, ""):
        return False
    return publish_verified(layout)


def tree(path: str) -> dict[str, tuple[int, int, int, bytes]]:
    """Return what has this name; nothing if nothing has it."""
    return fingerprint(Path(path)) if os.path.lexists(path) else {}


def is_moved(verified: Verified, layout: Layout) -> bool:
    """Return whether the whole library is there, with the lists that its receipt names.

    This takes no process, unlike :func:`is_judged_moved`, because there are thousands of cases.
    """
    receipt = load_receipt(layout)
    if receipt is None or _entries(layout.library("Library")) != _entries(str(verified.library)):
        return False
    sums, manifest = hash_file(layout.receipt_sums), hash_file(layout.receipt_manifest)
    wanted = receipt.sums_sha256, receipt.manifest_file_sha256
    return (sums.hex(), manifest.hex()) == wanted and os.path.exists(layout.receipt_omitted)


def _entries(path: str) -> dict[str, tuple[object, ...]]:
    return {name: facts[1:] for name, facts in tree(path).items()}


def is_judged_moved(verified: Verified, layout: Layout) -> bool:
    """Return the same, as other programs find it."""
    target = Path(layout.target)
    is_whole = rsync_differences(verified.library, target / "Library") == []
    return is_whole and sums_hold(target) and omitted(target) == {}


def marks(layout: Layout) -> list[str]:
    """Return the content of somebody's library wherever it is."""
    return [path.read_text() for path in Path(layout.target).glob("Library*/mark")]


VOLUMES = (nothing, skeleton, foreign, planned, renamed, renamed_beside)
SHORT = (*((publish_verified, make) for make in VOLUMES), (next_run, skeleton), (next_run, renamed))
RUNS = [
    pytest.param(run, make, marks=() if (run, make) in SHORT else pytest.mark.long)
    for run in (publish_verified, next_run)
    for make in VOLUMES
]


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize(("run", "make"), RUNS)
def test_publication_meets_one_failing_call(
    tmp_path: Path,
    verified: Verified,
    run: Callable[[Layout], bool],
    make: Callable[[Layout], None],
    code: int,
) -> None:
    """The library arrives whole, or the volume is as it was and the next run finishes it."""
    layout, number = Layout(str(tmp_path / "volume")), 0
    for number, fault in faults(code):
        verified.copy(tmp_path / "volume")
        make(layout)
        before, owned = tree(layout.library("Library")), marks(layout)
        failure = ""
        try:
            with fault:
                assert run(layout), number
        except StorageError as error:
            failure = str(error)
        if failure:
            assert os.strerror(code) in failure, number
            assert tree(layout.library("Library")) == before, number
            assert not os.path.lexists(layout.receipt), number
            assert next_run(layout), number
        assert is_moved(verified, layout), number
        assert marks(layout) == owned, number
    assert is_judged_moved(verified, layout)
    assert number > 10


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("make", VOLUMES)
def test_undo_of_a_publication_meets_one_failing_call(
    tmp_path: Path,
    verified: Verified,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[Layout], None],
    code: int,
) -> None:
    """The receipt is never left alone, and the next run does not remove the verified library."""
    layout, number, following = Layout(str(tmp_path / "volume")), 0, [FailingCall(1, code, CALLS)]

    def save(path: str, receipt: Receipt) -> None:
        """Fail as a volume does that cannot make the receipt durable; then comes the fault."""
        save_record(path, receipt)
        following[0].__enter__()
        raise storage_error(OSError(errno.EIO, os.strerror(errno.EIO)), path)

    for number, fault in faults(code):
        verified.copy(tmp_path / "volume")
        make(layout)
        owned, following[0] = marks(layout), fault
        with monkeypatch.context() as patched:
            patched.setattr(publish, "save_record", save)
            with pytest.raises(StorageError):
                publish_verified(layout)
        fault.__exit__()
        assert not os.path.lexists(layout.receipt) or is_moved(verified, layout), number
        assert next_run(layout), number
        assert is_moved(verified, layout), number
        assert marks(layout) == owned, number
    assert is_judged_moved(verified, layout)
    assert number > 1


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("make", [planned, renamed, renamed_beside])
def test_way_to_staging_meets_one_failing_call(
    tmp_path: Path, verified: Verified, make: Callable[[Layout], None], code: int
) -> None:
    """The library is in staging in the end, and what was set aside has its name again."""
    layout, number = Layout(str(tmp_path / "volume")), 0
    for number, fault in faults(code):
        verified.copy(tmp_path / "volume")
        make(layout)
        owned = marks(layout)
        with suppress(StorageError), fault:
            unpublish(PullRecord(layout))
        if PullRecord(layout).current.phase == "publishing":
            unpublish(PullRecord(layout))
        assert PullRecord(layout).current.phase == "transferring"
        assert _entries(layout.staged("Library")) == _entries(str(verified.library)), number
        assert sorted(tree(layout.library("Library"))) == ([".", "mark"] if owned else []), number
    assert number > 5


def test_staged_library_disappears_before_the_rename(tmp_path: Path, verified: Verified) -> None:
    """Folders without a file are not taken for a library that was renamed already."""
    layout = verified.copy(tmp_path / "volume")
    skeleton(layout)
    os.rename(layout.staged("Library"), tmp_path / "lost")
    with pytest.raises(StorageError, match="neither in staging nor in its place"):
        publish.publish(PullRecord(layout), lambda: None)
    assert not os.path.lexists(layout.receipt)


@pytest.mark.parametrize("entry", ["file", "symlink"])
def test_what_is_staged_is_no_folder(tmp_path: Path, verified: Verified, entry: str) -> None:
    """Nothing but a folder gets a receipt, and the name ``Library`` is free again."""
    layout, lost = verified.copy(tmp_path / "volume"), tmp_path / "lost"
    os.rename(layout.staged("Library"), lost)
    staged = Path(layout.staged("Library"))
    staged.symlink_to(lost) if entry == "symlink" else staged.write_text("not a library")
    with pytest.raises(StorageError, match="Not a directory"):
        publish.publish(PullRecord(layout), lambda: None)
    assert not os.path.lexists(layout.receipt)
    assert not os.path.lexists(layout.library("Library"))


def test_lists_without_their_names_after_a_power_loss(tmp_path: Path, verified: Verified) -> None:
    """A volume may keep the library's rename and lose those before it: the receipt has its lists.

    Btrfs need not make a rename in one folder durable with the fsync of another.
    """
    layout = verified.copy(tmp_path / "volume")
    renamed(layout)
    name = PullRecord(layout).planned.snapshot
    os.rename(layout.receipt_manifest, layout.manifest(name))
    os.rename(layout.receipt_sums, layout.sums(name))
    os.rename(layout.receipt_omitted, layout.omitted(name))
    assert next_run(layout)
    assert is_judged_moved(verified, layout)
    assert os.path.exists(layout.receipt_manifest)
