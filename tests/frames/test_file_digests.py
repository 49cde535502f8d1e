"""Digests that are copied from another snapshot's file get the numbers of their files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from shared.frames import file_digests
from shared.frames.file_digests import FileDigests

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def _digest(number: int) -> bytes:
    return number.to_bytes(32, "big")


def test_runs_are_copied_to_their_new_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs are copied in batches, and digests outside of runs stay unknown."""
    monkeypatch.setattr(file_digests, "_BATCH", 3)
    old = FileDigests(str(tmp_path / "old"), 20)
    old.put((number, _digest(number + 1)) for number in range(20))
    new = FileDigests(str(tmp_path / "new"), 20)

    new.copy(old, [(0, 1, 1), (4, 2, 11), (19, 19, 1)])

    expected: list[bytes | None] = [None] * 20
    expected[1], expected[19] = _digest(1), _digest(20)
    expected[2:13] = [_digest(number + 1) for number in range(4, 15)]
    assert list(new) == expected
    assert (tmp_path / "new").stat().st_size == 20 * 32


def test_filesystem_accepts_part_of_a_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All digests are written although each call writes half of its bytes."""
    pwrite = os.pwrite
    monkeypatch.setattr(
        os, "pwrite", lambda fd, data, at: pwrite(fd, data[: (len(data) + 1) // 2], at)
    )
    old, new = (FileDigests(str(tmp_path / name), 9) for name in ("old", "new"))
    old.put((number, _digest(number + 1)) for number in range(9))
    new.copy(old, [(0, 0, 9)])
    assert list(old) == list(new) == [_digest(number + 1) for number in range(9)]


def test_filesystem_returns_part_of_a_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All digests are read although each call returns half of what it was asked for."""
    old, new = (FileDigests(str(tmp_path / name), 9) for name in ("old", "new"))
    old.put((number, _digest(number + 1)) for number in range(9))
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, count, at: pread(fd, (count + 1) // 2, at))
    new.copy(old, [(0, 0, 9)])
    whole = b"".join(_digest(number + 1) for number in range(9))
    assert old.block(range(9)) == new.block(range(9)) == whole


def test_unknown_digests_stay_unknown(tmp_path: Path) -> None:
    """A copy of an empty file has no digest."""
    old, new = (FileDigests(str(tmp_path / name), 5) for name in ("old", "new"))
    new.copy(old, [(0, 0, 5)])
    assert list(new) == [None] * 5
