"""Waits for another process, with a deadline."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable


def wait_until(
    condition: Callable[[], object],
    seconds: float = 100.0,
    *,
    what: str = "",
    meanwhile: subprocess.Popen[bytes] | None = None,
    every: float = 0.005,
) -> None:
    """Wait until ``condition`` holds.

    Args:
        condition: what is waited for.
        seconds: the deadline.
        what: its name in the error.
        meanwhile: a process that must not end before.
        every: seconds between two looks.

    Raises:
        TimeoutError: the deadline is over, or the process has ended.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if meanwhile is not None and meanwhile.poll() is not None:
            raise TimeoutError(f"process {meanwhile.args!r} ended with {meanwhile.returncode}")
        if time.monotonic() > deadline:
            raise TimeoutError(f"not after {seconds} s: {what or condition}")
        time.sleep(every)
