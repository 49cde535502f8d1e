"""The agent's current work, for the status line and the metrics."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shared.wire.protocol import Snapshot


class Phase(Enum):
    """Work on the whole library. Only one such job runs at a time."""

    SCANNING = "scanning"
    HASHING = "hashing"
    CHECKING = "checking"
    INSPECTING = "inspecting"
    """A scan for a preflight."""


class Activity:
    """The work under way, and the number and duration of finished jobs."""

    def __init__(self) -> None:
        self.running: set[Phase] = set()
        self.ended: dict[Phase, int] = dict.fromkeys(Phase, 0)
        self.seconds: dict[Phase, float] = dict.fromkeys(Phase, 0.0)
        self.frames = 0
        """Number of requests for frames by pullers."""
        self._snapshot: Snapshot | None = None
        self._asked = bytearray()
        self._lock = threading.Lock()

    @contextmanager
    def phase(self, phase: Phase) -> Iterator[None]:
        """Record ``phase`` as running for the duration of the ``with`` block."""
        self.running.add(phase)
        started = time.monotonic()
        try:
            yield
        finally:
            self.running.discard(phase)
            self.ended[phase] += 1
            self.seconds[phase] += time.monotonic() - started

    def frame(self, snapshot: Snapshot, number: int) -> None:
        """Record that frame ``number`` was requested by a puller. May be called from any thread."""
        with self._lock:
            if self._snapshot is None or self._snapshot.id != snapshot.id:
                self._asked = bytearray(snapshot.frames)
                self._snapshot = snapshot
            self._asked[number] = 1
            self.frames += 1

    def __str__(self) -> str:
        """Return one line for people: running phases, and the progress of the latest puller."""
        parts = [phase.value for phase in Phase if phase in self.running]
        if self._snapshot is not None and self._asked:
            asked, all_of_them = sum(self._asked), len(self._asked)
            percent = 100 * asked // all_of_them
            short = self._snapshot.id[:12]
            parts.append(f"{asked} of {all_of_them} frames of {short} requested ({percent} %)")
        return ", ".join(parts) or "waiting for a puller"
