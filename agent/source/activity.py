"""The agent's current work, for the status line and the metrics."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Progress:
    """How far a puller has come with a snapshot, since the agent was started."""

    snapshot: Snapshot
    requested: int
    """Number of frames that it has requested. It does not request those that it has."""


class Activity:
    """The work under way, and the number and duration of finished jobs."""

    def __init__(self) -> None:
        self.running: set[Phase] = set()
        self.ended: dict[Phase, int] = dict.fromkeys(Phase, 0)
        self.seconds: dict[Phase, float] = dict.fromkeys(Phase, 0.0)
        self.latest: dict[Phase, float] = dict.fromkeys(Phase, 0.0)
        """Seconds that the latest job took."""
        self.frames = 0
        """Number of requests for frames by pullers."""
        self._snapshot: Snapshot | None = None
        self._asked = bytearray()
        self._began = self._last = 0.0
        self.live_seconds: float | None = None
        """Seconds from the first request for a frame to the last one, in the live pass before."""
        self.heard: float | None = None
        """Time of the last request of a puller, in seconds of the monotonic clock."""
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
            self.latest[phase] = time.monotonic() - started
            self.seconds[phase] += self.latest[phase]

    def frame(self, snapshot: Snapshot, number: int) -> None:
        """Record that frame ``number`` was requested by a puller. May be called from any thread."""
        with self._lock:
            if self._snapshot is None or self._snapshot.id != snapshot.id:
                if self._snapshot is not None and self._snapshot.kind != "cold":
                    self.live_seconds = self._last - self._began
                self._asked = bytearray(snapshot.frames)
                self._snapshot, self._began = snapshot, time.monotonic()
            self._asked[number] = 1
            self._last = time.monotonic()
            self.frames += 1

    def progress(self) -> Progress | None:
        """Return how far the latest puller has come; None before its first frame."""
        with self._lock:
            if self._snapshot is None:
                return None
            return Progress(self._snapshot, self._asked.count(1))

    def __str__(self) -> str:
        """Return one line for people: running phases, and the progress of the latest puller."""
        parts = [phase.value for phase in Phase if phase in self.running]
        if self._snapshot is not None and self._asked:
            asked, all_of_them = sum(self._asked), len(self._asked)
            percent = 100 * asked // all_of_them
            short = self._snapshot.id[:12]
            parts.append(f"{asked} of {all_of_them} frames of {short} requested ({percent} %)")
        return ", ".join(parts) or "waiting for a puller"
