"""A million excluded files pass a scan and a pull, and neither side's memory grows with them."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rig.oracle import omitted, rsync_differences

if TYPE_CHECKING:
    from rig.programs import Agent, Puller

FOLDERS = FILES = 1000
MOST_KIBIBYTES = 48 * 1024
"""Limit of growth of a process. The lists as text in one response took 100 MB on each side."""


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A file that is wanted, and a million names in a thousand folders that are not."""
    library = tmp_path / "vm" / "Library"
    library.mkdir(parents=True)
    (library / "wanted").write_bytes(b"wanted")
    for folder in range(FOLDERS):
        place = library / f"{folder:03}"
        place.mkdir()
        first = place / f"{'x' * 60}-0.jpg"
        first.write_bytes(b"7 bytes")
        for number in range(1, FILES):
            os.link(first, place / f"{'x' * 60}-{number}.jpg")
    return library


def _peak(pid: int) -> int:
    """Return the most memory that a process has had, in KiB."""
    found = re.search(r"^VmHWM:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


@pytest.mark.long
@pytest.mark.timeout(900)
def test_million_excluded_files(agent: Agent, puller: Puller, library: Path) -> None:
    """Everything is listed beside the receipt, which stays small; so does each process."""
    agent_before = _peak(agent.pid)
    done = subprocess.run(
        ["/usr/bin/env", "python3", "-c", _MEASURED, *puller.command("--exclude", "*.jpg")],
        check=True,
        capture_output=True,
        text=True,
        env=puller.environment(),
        timeout=600,
    )
    puller_peak = int(done.stdout)

    assert _peak(agent.pid) - agent_before < MOST_KIBIBYTES
    assert puller_peak < 3 * MOST_KIBIBYTES
    assert (puller.target / ".plexodus" / "receipt.json").stat().st_size < 16 * 1024
    listed = omitted(puller.target)
    assert len(listed) == FOLDERS * FILES
    assert set(listed.values()) == {7}
    for file in library.rglob("*.jpg"):
        file.unlink()
    differences = rsync_differences(library, puller.target / "Library")
    assert [line for line in differences if not line.startswith(".d..t")] == []


_MEASURED = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
