"""The probe's scratch folder is emptied where a descriptor lists what was there at first."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from initpuller.volume.fitness import scratch_folder as tested
from initpuller.volume.records.target import open_layout
from shared.tree import folder_names as real

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_volume_that_lists_through_a_descriptor_only_once(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux's SMB client does that: a probe found its own file there and took it for an error."""
    layout = open_layout(str(target))
    os.mkdir(layout.folder)
    with tested.scratch_folder(layout) as folder:
        seen: dict[int, list[str]] = {}

        def names_at_first(fd: int) -> list[str]:
            names = real.folder_names(fd)
            return seen.setdefault(fd, names) if fd == folder else names

        monkeypatch.setattr(tested, "folder_names", names_at_first)
        for name in ("one", "two"):
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, dir_fd=folder))
            tested.empty(folder)
            assert real.folder_names(folder) == []
    assert not any(os.path.exists(path) for path in layout.probes)
