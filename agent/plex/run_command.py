"""One run of a program that manages Plex, with a time limit."""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from agent.host.state_owner import program_user
from agent.plex.service import NotBegun
from shared.errors import CutoverRefused, printable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from threading import Event

_GLANCE = 0.2


@dataclass(frozen=True)
class Patience:
    """The handling of a stop that takes too long, or fails."""

    ending: Event
    """Set when the agent itself stops, which ends the wait at once."""
    left_running: list[subprocess.Popen[bytes]] | None = None
    """List that receives the process, which then continues; None if the process is killed."""
    refusal: int | None = None
    """Exit code with which the program says that it has begun nothing; None if it has no such."""


def run_command(
    command: Sequence[str], seconds: float, failed: str, hint: str, stop: Patience | None = None
) -> str:
    """Run ``command`` and return its output, without a wait for its background processes.

    Raises:
        NotBegun: If the program cannot be run, or its exit code says so.
        CutoverRefused: If it fails, or takes too long. Its effect may come later.
    """
    # Files in memory: unlike a pipe, a background process may keep them open.
    with (
        os.fdopen(os.memfd_create("out"), "w+b") as out,
        os.fdopen(os.memfd_create("err"), "w+b") as err,
    ):
        user, group = program_user()
        try:
            process = subprocess.Popen(  # noqa: S603 - the administrator's own, without a shell
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                env=os.environ | {"LC_ALL": "C"}, user=user, group=group,
            )  # fmt: skip
        except OSError as error:
            raise NotBegun(f"{failed} ({error.strerror})", path=command[0]) from error
        wait_for(process, seconds, failed, hint, stop)
        if process.returncode != 0:
            said = printable(_content(err).strip()[-500:]) or f"exit code {process.returncode}"
            is_refusal = stop is not None and process.returncode == stop.refusal
            kind = NotBegun if is_refusal else CutoverRefused
            raise kind(f"{failed} ({said})", hint=hint)
        return _content(out)


def wait_for(
    process: subprocess.Popen[bytes], seconds: float, failed: str, hint: str, stop: Patience | None
) -> None:
    """Wait for the end of a program, whatever its exit code.

    Raises:
        CutoverRefused: If it takes too long.
    """
    deadline = time.monotonic() + seconds
    while True:
        with suppress(subprocess.TimeoutExpired):
            process.wait(_GLANCE)
            return
        is_ending = stop is not None and stop.ending.is_set()
        if not is_ending and time.monotonic() < deadline:
            continue
        if stop is not None and stop.left_running is not None:
            stop.left_running.append(process)
        else:
            process.kill()
            process.wait()
        if is_ending:
            raise CutoverRefused(f"{failed} before the agent itself was stopped")
        if stop is None:
            raise CutoverRefused(f"{failed} within {seconds:.0f} s", hint=hint)
        raise CutoverRefused(
            f"{failed} within {seconds:.0f} s (stop_seconds)",
            hint="If Plex needs more time, increase stop_seconds in the agent's settings and"
            f" restart the agent. {hint}",
        )


def _content(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")
