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

    @property
    def is_complete(self) -> bool:
        """Whether each frame was requested."""
        return self.requested >= self.snapshot.frames


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
        """Seconds of the latest live pass, from its scan to its last request for a frame."""
        self.asking = 0
        """Number of requests of pullers that are being answered."""
        self.heard: float | None = None
        """End of the last one, in seconds of the monotonic clock."""
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

    def scanned(self, snapshot: Snapshot, began: float) -> None:
        """Record that a puller got a snapshot, whose scan began at a time of that clock."""
        with self._lock:
            if self._snapshot is None or self._snapshot.id != snapshot.id:
                self._asked, self._snapshot = bytearray(snapshot.frames), snapshot
            self._began, self._last = began, time.monotonic()
            self._note_live()

    def frame(self, snapshot: Snapshot, number: int) -> None:
        """Record that frame ``number`` was requested by a puller. May be called from any thread.

        Requests for an older snapshot, and for a frame that does not exist, are only counted.
        """
        with self._lock:
            self.frames += 1
            known = self._snapshot
            if number >= snapshot.frames:
                return
            if known is None or (known.id != snapshot.id and known.created < snapshot.created):
                self._asked, self._snapshot = bytearray(snapshot.frames), snapshot
                self._began = time.monotonic()
            elif known.id != snapshot.id:
                return
            self._asked[number] = 1
            self._last = time.monotonic()
            self._note_live()

    def _note_live(self) -> None:
        if self._snapshot is not None and self._snapshot.kind != "cold":
            self.live_seconds = self._last - self._began

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
