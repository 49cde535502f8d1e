"""A library that no manifest can describe ends the pull at once: a retry would scan all of it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from rig.hostile.agent import entry, folder
from rig.programs import Agent, Puller, running

from shared.errors import ManifestTooLarge
from shared.frames import manifest_file
from shared.frames.manifest_file import write_manifest
from shared.program.exit_codes import ExitCode
from shared.wire.protocol import SNAPSHOTS

if TYPE_CHECKING:
    from pathlib import Path

TIB = 2**40


def test_sparse_files_of_75_tib_are_scanned_once(tmp_path: Path) -> None:
    """A pull of more frames than a plan can have says so, and is not retried for hours."""
    library, target = tmp_path / "vm" / "Library", tmp_path / "config"
    library.mkdir(parents=True)
    target.mkdir()
    for name in "abcde":
        with (library / name).open("wb") as file:
            os.truncate(file.fileno(), 15 * TIB)
    agent = Agent(tmp_path / "state", library, tmp_path / "agent.log")
    puller = Puller(target, tmp_path / "puller.log", agent.pair())
    with running(agent):
        done = puller.pull()

        assert done.code == ExitCode.INTEGRITY, done.text
        assert "more than 16777216 frames" in done.reason()
        assert agent.requests().count(f"POST {SNAPSHOTS}") == 1
    assert not (target / "Library").exists()


def test_scan_ends_at_the_most_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent makes no manifest that every puller refuses, and one of the most entries."""
    monkeypatch.setattr(manifest_file, "MAX_ENTRIES", 3)
    entries = [folder(b"Library"), *(entry(b"Library/" + name) for name in (b"a", b"b", b"c"))]
    assert write_manifest(str(tmp_path / "most"), b"Library", entries[:3]).plan.entries == 3
    with pytest.raises(ManifestTooLarge, match="more than 3 entries"):
        write_manifest(str(tmp_path / "more"), b"Library", entries)
