"""Output that cannot be written: a command that was called for it fails, any other does not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rig.programs import clean_environment

from agent.host.migration_log import MigrationLog
from shared.program.exit_codes import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable

_BIN = Path(sys.executable).parent
PRODUCTS = {
    "pair": ["plexodus-agent", "pair", "--address", "vm:8443", "--state"],
    "status": ["plexodus-agent", "status", "--state"],
    "status-json": ["plexodus-agent", "status", "--json", "--state"],
    "log": ["plexodus-agent", "log", "--state"],
    "pull-status": ["plexodus-puller", "status", "--target"],
    "pull-status-watch": ["plexodus-puller", "status", "--watch", "--target"],
    "paths": ["plexodus-puller", "paths", "--target"],
    "version": ["plexodus-puller", "--version"],
}
"""Commands that are called for what they print; each ends with the option of a folder."""


def shell(streams: str, *words: str | Path) -> subprocess.CompletedProcess[bytes]:
    """Run one of our programs with its ``streams`` as a shell's redirections."""
    command = ["bash", "-c", f'"$0" "$@" {streams}', _BIN / words[0], *words[1:]]
    return subprocess.run(command, check=False, capture_output=True, env=clean_environment())


@pytest.fixture
def folder(moved: Path, tmp_path: Path) -> Callable[[list[str]], Path]:
    """Return the folder of a command: a volume with a library, or a state folder with a log."""
    state = tmp_path / "state"
    state.mkdir()
    MigrationLog(str(state)).write("pull", "started")
    return lambda words: moved if words[0] == "plexodus-puller" else state


@pytest.mark.parametrize("streams", [">/dev/full", ">&-"], ids=["full", "closed"])
@pytest.mark.parametrize("words", PRODUCTS.values(), ids=PRODUCTS.keys())
def test_product_that_cannot_be_written(
    folder: Callable[[list[str]], Path], words: list[str], streams: str
) -> None:
    """The exit code is that of a full disk, and the log says what was not written."""
    place = () if "--version" in words else (folder(words),)
    done = shell(streams, *words, *place)
    assert done.returncode == ExitCode.STORAGE, done.stderr
    assert b"the output cannot be written" in done.stderr
    assert b"bug" not in done.stderr


def test_product_that_nobody_reads(folder: Callable[[list[str]], Path]) -> None:
    """After the reader of a pipe has ended, the command fails, and says nothing about it."""
    words = PRODUCTS["log"]
    ours, theirs = os.pipe()
    os.close(ours)
    command: list[str | Path] = [_BIN / words[0], *words[1:], folder(words)]
    done = subprocess.run(command, check=False, stdout=theirs, stderr=subprocess.PIPE)
    os.close(theirs)
    assert done.returncode == ExitCode.INTERNAL
    assert done.stderr == b""


@pytest.mark.parametrize("streams", [">/dev/full 2>&1", ">&- 2>&-"], ids=["full", "closed"])
def test_work_whose_report_cannot_be_written(moved: Path, tmp_path: Path, streams: str) -> None:
    """An undo and a verification are done, and their exit codes say so."""
    assert shell(streams, "plexodus-agent", "undo", "--state", tmp_path).returncode == 0
    assert shell(streams, "plexodus-puller", "verify", "--target", moved).returncode == 0


def test_undo_that_cannot_report_its_settings(tmp_path: Path) -> None:
    """An ExecStopPost whose journal is gone still undoes: Plex would stay stopped otherwise."""
    settings = tmp_path / "agent.toml"
    settings.write_text("nonsense")
    words: list[str | Path] = [
        "undo",
        "--unless-committed",
        "--config",
        settings,
        "--state",
        tmp_path,
    ]
    assert shell("2>/dev/full", "plexodus-agent", *words).returncode == 0
    said = shell("2>&1", "plexodus-agent", *words)
    assert b"The settings are ignored" in said.stdout


def test_completion_of_a_shell() -> None:
    """The script for a shell's completion is printed, with exit code 0."""
    environment = clean_environment() | {"_PLEXODUS_AGENT_COMPLETE": "bash_source"}
    command = [_BIN / "plexodus-agent"]
    done = subprocess.run(command, check=True, capture_output=True, env=environment)
    assert b"complete" in done.stdout
