"""The end of a pull on a terminal is what an administrator puts into a ticket."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from rig.programs import clean_environment

from initpuller.commands.summary import summary
from initpuller.volume.status import Standing
from shared.wire.pairing import PAIRING_VARIABLE

if TYPE_CHECKING:
    from pathlib import Path

    from rig.programs import Agent


def shown(target: Path, agent: Agent, *options: str) -> str:
    """Return what a pull that succeeds writes to its terminal's standard output."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "initpuller", "pull", "--target", str(target), *options]
    environment = clean_environment() | {PAIRING_VARIABLE: agent.pairing}
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=subprocess.PIPE, env=environment
    ) as process:
        os.close(theirs)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    text = b""
    try:
        while piece := os.read(ours, 65536):
            text += piece
    except OSError:  # the other end is closed, and everything was read
        pass
    os.close(ours)
    return text.decode().replace("\r\n", "\n")


def test_summary_of_a_move(agent: Agent, target: Path) -> None:
    """It has source, content, times, digests, what was left out, and what comes next."""
    text = shown(target, agent, "--no-cutover", "--exclude", "file07")
    receipt = json.loads((target / ".plexodus" / "receipt.json").read_text())
    lines = dict(
        line.split(maxsplit=1) for line in text.replace("left out", "left-out").splitlines()
    )
    assert lines["state"] == "done"
    assert lines["to"] == str(target / "Library")
    assert lines["from"].endswith(str(agent.library))
    assert lines["content"].startswith(f"{receipt['entries']} entries, ")
    assert lines["snapshot"] == f"sha256:{receipt['snapshot']}"
    assert receipt["sums_sha256"] in lines["verified"]
    assert lines["left-out"].startswith(f"{receipt['omitted']['excluded']} entries by --exclude")
    assert lines["next"] == "start the application on the volume"  # nothing was stopped for it
    assert shown(target, agent, "--no-cutover") == ""


def test_summary_of_a_move_that_had_plex_stopped() -> None:
    """It says for how long, and how to undo the move."""
    standing = Standing(phase="done", percent=100, entries=3, content_bytes=2048, runs=2)
    lines = summary(standing, None, 200.0, 1.94).splitlines()
    assert "time      3 min, in run 2; Plex was stopped for 1.9 s" in lines
    assert lines[-1].endswith("run 'plexodus-agent undo' on the VM")
    assert summary(Standing(phase="nothing", percent=0), None, 1.0, None) == ""


@pytest.mark.parametrize("options", [("--until=ready", "--no-cutover"), ("--rehearse",)])
def test_summary_before_a_move(agent: Agent, target: Path, options: tuple[str, ...]) -> None:
    """A pull that does not move says how to move."""
    text = shown(target, agent, *options)
    assert f"run pull without {options[0].partition('=')[0]}" in text
    assert "undo" not in text
