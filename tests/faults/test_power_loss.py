"""Power that is lost at any moment of a move: the volume has all that its records say."""

from __future__ import annotations

import os
import random
import subprocess
from typing import TYPE_CHECKING

import pytest
from rig.journal_oracle import journal_damage, journalled_frames
from rig.mounts import NEEDS_ROOT, mounted
from rig.oracle import rsync_differences, sums_hold
from rig.power.disk import MOUNT_OPTIONS, ForgetfulDisk
from rig.power.write_log import apply, read_log, survivors
from rig.volume import fingerprint, grow_tiny, pull

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from rig.power.write_log import Write
    from rig.programs import Agent

pytestmark = NEEDS_ROOT
KINDS = ["ext4", *(pytest.param(kind, marks=pytest.mark.long) for kind in ("xfs", "btrfs"))]
SUBSETS = 2
"""Random sets of unflushed writes that are tried between two flushes."""


@pytest.fixture
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[ForgetfulDisk]:
    """Return a mounted disk with a filesystem of the kind that the test names."""
    place = tmp_path / "volume"
    place.mkdir()
    disk = ForgetfulDisk(tmp_path / "disk", place, request.param)
    try:
        disk.make()
        yield disk
    finally:
        disk.remove()


@pytest.mark.parametrize("disk", KINDS, indirect=True)
def test_disk_forgets_what_was_not_flushed(disk: ForgetfulDisk) -> None:
    """A file is there after a cut if it was synced; its rename is not if its folder was not."""
    synced, other = disk.place / "synced", disk.place / "other"
    with synced.open("wb") as file:
        file.write(b"synced" * 1000)
        file.flush()
        os.fsync(file.fileno())
    assert read_log(disk.log)[-1] == [], "each sync is a flush of the disk"
    other.write_bytes(b"other")
    synced.rename(disk.place / "renamed")

    disk.cut()
    assert not synced.exists()
    *flushed, _ = read_log(disk.log)
    for writes in flushed:
        apply(disk.log, writes, disk.base)
    disk.switch_on()

    assert synced.read_bytes() == b"synced" * 1000
    assert [each.name for each in disk.place.iterdir()] == ["synced"]


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize("disk", KINDS, indirect=True)
def test_power_cut_between_two_flushes_of_a_move(
    disk: ForgetfulDisk,
    every: int,
    tmp_path: Path,
    new_agent: Callable[[Path], Agent],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The old library is whole, the new one whole or absent, and each journaled frame is there."""
    agent, target = new_agent(grow_tiny(tmp_path / "vm" / "Library")), disk.place / "config"
    agent.pair()
    agent.start()
    (target / "Library").mkdir(parents=True)
    (target / "Library" / "old").write_bytes(b"old")
    old = fingerprint(target / "Library")
    subprocess.run(["sync", "--file-system", disk.place], check=True)
    before = len(read_log(disk.log))

    monkeypatch.setattr("initpuller.pull.transfer.BATCH", 1)
    done = pull(target, agent, "--on-existing", "set-aside")
    assert done.code == 0, done.text
    disk.cut()

    kinds, counts = [], []
    for trial, is_bare in _trials(disk, before, every):
        options = f"loop,{MOUNT_OPTIONS[disk.kind]}"
        with mounted(tmp_path / "trial", "-o", options, trial) as place:
            kind, frames = _state(place / "config", agent.library, old)
            counts.append(frames)
            kinds += [kind] if is_bare else []
    assert kinds == sorted(kinds, key=["old", "aside", "complete"].index), "in this order"
    assert {"old", "complete"} <= set(kinds)
    assert len(set(counts)) > 2, "cuts between the lines of the journal were tried"
    assert kinds[-1] == "complete"
    assert counts[-1] == 0, "the last cut is after the last removal"


def _trials(disk: ForgetfulDisk, before: int, every: int) -> Iterator[tuple[Path, bool]]:
    """Yield the image that each cut leaves, in order of time; and whether all unflushed is gone.

    The cuts are after the flush number ``before``, after each ``every``-th one that follows, and at
    the end.
    """
    chance, epochs = random.Random(1), read_log(disk.log)  # noqa: S311 - the same cuts each time
    trial = disk.base.with_name("trial")

    def left(writes: Sequence[Write]) -> tuple[Path, bool]:
        trial.unlink(missing_ok=True)  # its filesystem may still be written by a late unmount
        subprocess.run(["cp", "--sparse=always", disk.base, trial], check=True)
        apply(disk.log, writes, trial)
        return trial, not writes

    for number, writes in enumerate(epochs):
        if number >= before and (number - before) % every == 0:
            yield left([])
            for _ in range(SUBSETS if writes else 0):
                yield left(list(survivors(chance, writes, disk.sector)))
        apply(disk.log, writes, disk.base)
    yield left([])


def _state(target: Path, library: Path, old: Mapping[str, object]) -> tuple[str, int]:
    """Return what has the library's name, and how many frames are journaled, if all is whole."""
    assert journal_damage(target) == []
    found = target / "Library"
    names = [found, *target.glob("Library.set-aside-*")]
    (kept,) = [each for each in names if (each / "old").exists()]
    assert fingerprint(kept) == old
    if kept == found:
        kind = "old"
    elif found.exists():
        assert rsync_differences(library, found) == []
        assert sums_hold(target)
        kind = "complete"
    else:
        kind = "aside"
    return kind, journalled_frames(target)
