"""The failure of a command, as another program of ours reads it from its log."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from shared.program.command_line import read_failure
from shared.program.exit_codes import ExitCode

if TYPE_CHECKING:
    from pathlib import Path


def test_failure_of_a_command(tmp_path: Path) -> None:
    """A command that fails leaves its reason, exit code and kind of error in its log."""
    missing = tmp_path / "missing"
    done = subprocess.run(
        [sys.executable, "-m", "initpuller", "status", "--target", missing],
        check=False,
        capture_output=True,
    )
    failure = read_failure(done.stderr)
    assert failure is not None
    assert failure.exit_code == done.returncode == ExitCode.CONFIGURATION
    assert failure.kind == "ConfigurationError"
    assert str(missing) in failure.reason


@pytest.mark.parametrize(
    "log",
    [
        b"",
        b"Usage: plexodus-puller [OPTIONS]\nError: No such command\n",
        b'{"event":"watching"}\n[1]\n"failed"\n',
        b'{"event":"failed"}\n{"event":"failed","reason":7,"exit_code":1,"kind":"x"}\n',
        b'\xff\xfe{"event":"failed"\n',
    ],
)
def test_log_without_a_failure(log: bytes) -> None:
    """Usage errors, other events and damaged lines are never taken for a failure."""
    assert read_failure(log) is None
