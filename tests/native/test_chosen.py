"""The accelerator is used where it can be: a library that only Python moves takes twice as long."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from rig.hostile.agent import entry, folder

from initpuller.volume.fitness.volume_fit import VolumeFit
from initpuller.volume.ownership import choose_ownership
from initpuller.volume.records.target import open_layout
from shared.native import SWITCH, native

_BUILT = Path(__file__).parents[2] / "build" / "native" / "installed"


@pytest.mark.skipif(not _BUILT.exists(), reason="the accelerator is built where cargo is")
@pytest.mark.skipif(os.environ.get(SWITCH) == "0", reason="the accelerator is switched off")
def test_installed_accelerator_is_in_use() -> None:
    """An accelerator that cannot be imported would skip all of its tests, and nobody would see."""
    assert native is not None


@pytest.mark.parametrize(
    ("mtime_ns", "is_exact"), [(1_700_000_000 * 10**9, True), (2**64 - 1, False)]
)
def test_usual_times_are_exact_on_a_usual_volume(
    tmp_path: Path, mtime_ns: int, *, is_exact: bool
) -> None:
    """Every volume has a first and a last time. Entries between them need no rounding."""
    layout = open_layout(str(tmp_path))
    os.mkdir(layout.folder)
    fit = VolumeFit(layout, choose_ownership(None))
    entries = [folder(b"Library"), entry(b"Library/a", mtime_ns=mtime_ns)]
    needs, take = fit.collect()
    for each in entries:
        take(each)

    assert fit.policy(needs, entries, None).is_exact is is_exact
