"""``pull --no-cutover`` waits at its end, and the source is not what was transferred any more."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from rig.programs import clean_environment
from rig.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from rig.programs import Puller

_PULL = """
import sys, time
from pathlib import Path
from initpuller.__main__ import main
from initpuller.pull.cutover import Cutover
from initpuller.pull.passes import Passes

what, mark, calls = sys.argv[1], Path(sys.argv[2]), []
databases, require_none = Passes.databases, Cutover.require_none

def wait():
    mark.touch()
    while mark.exists():
        time.sleep(0.01)

async def slow_databases(self):
    found = await databases(self)
    if what == "databases":
        wait()
    return found

async def slow_undo(self):
    calls.append(await require_none(self))
    if what == "undo" and len(calls) == 2:
        wait()
        return True
    return calls[-1]

Passes.databases, Cutover.require_none = slow_databases, slow_undo
Passes.knows_databases = property(lambda _: what != "databases")
sys.argv[1:] = ["pull", *sys.argv[3:]]
main()
"""
"""A pull that waits after its transfer: for the check of the databases, or the end of an undo."""


@pytest.mark.parametrize("what", ["databases", "undo"])
def test_library_is_used_while_the_end_is_waited_for(
    puller: Puller, library: Path, what: str
) -> None:
    """A Plex that was started meanwhile is found, and nothing is published."""
    mark = puller.target / "mark"
    words: list[str | Path] = [what, mark, "--target", puller.target]
    environment = clean_environment() | puller.environment()
    with puller.log.open("wb") as log:
        command = [sys.executable, "-c", _PULL, *words]
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    wait_until(mark.exists, meanwhile=process)
    (library / "written by Plex").write_text("since")
    mark.unlink()
    refused = puller.finished(process)
    assert refused.code == 16, refused.text
    assert not (puller.target / "Library").exists()
