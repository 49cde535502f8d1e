"""Records and options of a volume refuse the impossible before anything is done."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from initpuller.volume import ownership
from initpuller.volume.ownership import Ownership, choose_ownership
from initpuller.volume.records.pull_record import PullRecord
from initpuller.volume.records.target import open_layout
from initpuller.volume.records.transitions import begin
from shared.errors import ConfigurationError, StorageError
from shared.wire.protocol import Library, Snapshot

if TYPE_CHECKING:
    from pathlib import Path


def test_volume_without_a_pull_has_no_record(target: Path) -> None:
    """A step that needs the record of a pull fails with its path, and invents none."""
    record = PullRecord(open_layout(str(target)))
    assert record.state is None
    with pytest.raises(StorageError, match="no pull is under way"):
        _ = record.current


def test_pull_that_is_not_verified_has_no_receipt(target: Path) -> None:
    """Nothing is published for a pull whose record names no receipt."""
    layout = open_layout(str(target))
    os.makedirs(layout.folder, exist_ok=True)
    record = PullRecord(layout)
    library = Library("id", "Library", "vm", "/var/lib/plex/Library")
    snapshot = Snapshot("0" * 64, "cold", library, "2026-01-31T23:59:59Z", 1, 0, 0, 0, 100, [])
    record.save(begin(snapshot, "keep", "2026-01-31T23:59:59Z", None, prune=False))
    with pytest.raises(StorageError, match="nothing is about to be published"):
        _ = record.planned


def test_owner_that_needs_capabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without them, only the process's own owner can be set, and it is the default."""
    monkeypatch.setattr(ownership, "_is_privileged", lambda: False)
    mine = os.geteuid(), os.getegid()
    assert choose_ownership(None) == Ownership(mine, privileged=False)
    assert choose_ownership(f"{mine[0]}:{mine[1]}") == Ownership(mine, privileged=False)
    for other in (f"{mine[0] + 1}:{mine[1]}", "keep"):
        with pytest.raises(ConfigurationError, match="needs the capabilities"):
            choose_ownership(other)
