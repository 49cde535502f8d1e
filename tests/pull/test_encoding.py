"""Frames are compressed only where that saves time; a library arrives identical either way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from rig.oracle import rsync_differences, sums_hold
from rig.volume import pull

if TYPE_CHECKING:
    from pathlib import Path

    from rig.programs import Agent

PASSES = "initpuller.pull.passes."


@pytest.mark.parametrize(("needed", "suffix"), [(0, ".tar"), (10**15, ".tar.zst")])
def test_network_decides_whether_frames_are_compressed(
    monkeypatch: pytest.MonkeyPatch,
    agent: Agent,
    library: Path,
    tmp_path: Path,
    needed: int,
    suffix: str,
) -> None:
    """Frames are plain tar on a network that is faster than compression, and zstd on others."""
    monkeypatch.setattr(PASSES + "_WORTH_A_PROBE", 0)
    monkeypatch.setattr(PASSES + "_FASTER_THAN_ZSTD", needed)
    target = tmp_path / "config"
    target.mkdir()

    done = pull(target, agent)

    assert done.code == 0, done.text
    frames = [each for each in agent.requests() if "/frames/" in each]
    assert frames
    assert all(each.rpartition("/")[2].partition(".")[1:] == (".", suffix[1:]) for each in frames)
    assert rsync_differences(library, target / "Library") == []
    assert sums_hold(target)


def test_small_library_is_not_probed(agent: Agent, tmp_path: Path) -> None:
    """A probe would take longer than it could save for a library of a few megabytes."""
    target = tmp_path / "config"
    target.mkdir()

    assert pull(target, agent).code == 0

    assert "GET /v1/probe" not in agent.requests()
