"""Times, attributes and names that a volume can keep, computed without a volume."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rig.hostile.agent import entry, folder

from initpuller.volume.fidelity import EXACT, Fidelity
from initpuller.volume.fitness.capabilities import ALWAYS_NEEDED, Abilities, judge, refuse
from initpuller.volume.fitness.requirements import Needs
from initpuller.volume.fitness.time_range import time_fidelity
from initpuller.volume.fitness.volume_fit import suspects
from shared.checks import CheckId, Outcome
from shared.errors import StorageError
from shared.tree.manifest import MAX_TIME

if TYPE_CHECKING:
    from pathlib import Path

SECOND = 10**9
FAT = Fidelity(2 * SECOND, 315_532_800 * SECOND, 4_354_819_198 * SECOND)
"""1980 to 2107, every two seconds."""
NFS_3 = Fidelity(1, 0, (2**32 - 1) * SECOND)


class Clock:
    """A replacement of os.utime on a volume that keeps times as ``rule`` says."""

    def __init__(self, rule: Fidelity) -> None:
        self._rule = rule
        self._real = os.utime

    def utime(self, fd: int, *, ns: tuple[int, int]) -> None:
        """Set the times of a file as far as the rule allows."""
        kept = self._rule.time(ns[1])
        self._real(fd, ns=(kept, kept))


@pytest.mark.parametrize(
    "rule", [EXACT, Fidelity(100), FAT, NFS_3], ids=["all", "SMB", "FAT", "NFS"]
)
def test_rule_of_a_volume_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: Fidelity
) -> None:
    """The probe finds the volume's step and range, on top of the test's own filesystem."""
    with (tmp_path / "file").open("wb") as file:
        below = time_fidelity(file.fileno(), [])
        monkeypatch.setattr(os, "utime", Clock(rule).utime)
        found = time_fidelity(file.fileno(), [0, SECOND + 1])
    assert below is not None
    assert found is not None
    for time in (-MAX_TIME, -1, 0, 1, 2**31 * SECOND + 7, 2**32 * SECOND, MAX_TIME):
        assert found.time(time) == below.time(rule.time(time))


def test_times_without_a_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A volume that ignores utime is not taken for a coarse one."""
    monkeypatch.setattr(os, "utime", lambda *_, **__: None)
    with (tmp_path / "file").open("wb") as file:
        assert time_fidelity(file.fileno(), []) is None


@given(st.integers(-MAX_TIME, MAX_TIME), st.sampled_from([EXACT, FAT, NFS_3]))
def test_what_is_kept_is_kept_again(time: int, rule: Fidelity) -> None:
    """A time that was rounded once is not changed by rounding it again, so runs can be compared."""
    assert rule.time(rule.time(time)) == rule.time(time)


def test_names_that_may_be_one_file() -> None:
    """Names collide by case, Unicode form or trailing dots, in one folder only."""
    pairs = [
        (b"L/Poster", b"L/poster"),
        ("L/a\u0301".encode(), "L/\u00e1".encode()),
        (b"L/b", b"L/b."),
    ]
    names = sorted(each for pair in pairs for each in pair)
    tree = [
        folder(b"L"),
        *(entry(name) for name in names),
        folder(b"L/sub"),
        entry(b"L/sub/Poster"),
    ]
    tree.sort(key=lambda each: each.path.replace(b"/", b"\0"))
    assert sorted(suspects(tree)) == sorted(tuple(sorted(pair)) for pair in pairs)


def test_needs_hold_no_more_than_examples() -> None:
    """A manifest with a million owners and attributes does not fill the memory."""
    needs = Needs()
    for number in range(3000):
        each = entry(b"L/%d" % number, uid=number, xattrs={"user.x": bytes(number)})
        needs.take(each)
    assert len(needs.owners) == len(needs.xattrs) == 256
    assert max(needs.xattrs.values(), key=lambda each: each["user.x"]) == {"user.x": 2999}


def test_what_a_manifest_does_not_need_is_a_warning() -> None:
    """Without a manifest, missing hard links are a warning and missing modes an error."""
    found = Abilities(EXACT, {CheckId.VOLUME_HARD_LINKS: "none", CheckId.VOLUME_MODE: "none"})
    outcomes = [check.outcome for check in judge(found, "/config (x)", ALWAYS_NEEDED)]
    assert outcomes == [Outcome.WARNING, Outcome.FAILURE]
    with pytest.raises(StorageError, match="/config"):
        refuse(judge(found, "/config (x)"))
