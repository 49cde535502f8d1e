"""A tree that nobody here wrote is moved whole."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rig.oracle import rsync_differences, sums_hold
from rig.programs import Puller

from shared.program.exit_codes import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from rig.programs import Agent

_CANDIDATES = (Path("/usr/share/doc"), Path("/usr/share"), Path("/usr/lib"))
_MOST_BYTES = 40 * 1024 * 1024
_MOST_ENTRIES = 4000


def test_copy_of_a_systems_files_arrives_identical(
    tmp_path: Path, new_agent: Callable[[Path], Agent]
) -> None:
    """Thousands of a distribution's files and links arrive without a difference."""
    library = tmp_path / "vm" / "Library"
    entries = _copy_some(next(path for path in _CANDIDATES if path.is_dir()), library)
    if entries < 100:
        pytest.skip("this system has no /usr/share or /usr/lib to take a copy of")
    agent = new_agent(library)
    agent.pair()
    agent.start()
    target = tmp_path / "config"
    target.mkdir()
    puller = Puller(target, tmp_path / "puller.log", agent.pairing)

    done = puller.pull()

    assert done.code == ExitCode.OK, done.text
    assert rsync_differences(library, target / "Library") == []
    assert sums_hold(target)
    assert puller.run("verify").returncode == ExitCode.OK


def _copy_some(origin: Path, library: Path) -> int:
    """Copy whole folders of ``origin`` until there are enough entries, and return their number."""
    library.mkdir(parents=True)
    size = entries = 0
    for folder in sorted(origin.iterdir()):
        if size > _MOST_BYTES or entries > _MOST_ENTRIES:
            break
        if not folder.is_dir() or folder.is_symlink():
            continue
        inside = [Path(top) / name for top, _, names in os.walk(folder) for name in names]
        room = sum(path.lstat().st_size for path in inside)
        if room > _MOST_BYTES:
            continue
        shutil.copytree(folder, library / folder.name, symlinks=True)
        size, entries = size + room, entries + len(inside)
    return entries
