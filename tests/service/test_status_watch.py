"""``status --watch`` follows a move on a terminal, and in a log file."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from rig.programs import clean_environment

from shared.program.screen import keep_showing

if TYPE_CHECKING:
    from pathlib import Path

CLEARED = b"\x1b[2J"


class EndedError(Exception):
    """The end of what a test shows."""


def test_terminal_is_redrawn(target: Path, moved: Path) -> None:
    """A finished pull replaces the screen that said that nothing was there."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "initpuller", "status", "--watch", "--target", str(target)]
    environment = clean_environment() | {"TERM": "xterm"}
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    ) as process:
        try:
            os.close(theirs)
            seen = b""
            while b"nothing" not in seen:
                seen += os.read(ours, 65536)
            shutil.copytree(moved / ".plexodus", target / ".plexodus")
            later = b""
            while b"done" not in later:
                later += os.read(ours, 65536)
            assert CLEARED in later
            assert b"nothing" not in later
        finally:
            process.terminate()
            process.wait(timeout=30)
            os.close(ours)


def test_log_file_gets_only_changes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a terminal, an unchanged screen is not repeated, and nothing clears the file."""
    texts = iter(["one", "one", "two"])

    def read() -> str:
        try:
            return next(texts)
        except StopIteration:
            raise EndedError from None

    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    with pytest.raises(EndedError):
        keep_showing(read)
    assert capsys.readouterr().out == "one\n\ntwo\n"
