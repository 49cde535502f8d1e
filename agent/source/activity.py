"""The current work of the agent, for the status line and the metrics."""

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
    """Work on the whole library, which one at a time does."""

    SCANNING = "scanning"
    HASHING = "hashing"
    CHECKING = "checking"
    INSPECTING = "inspecting"
    """For a preflight."""


class Activity:
    """Counters of the work under way: how often and how long it was."""

    def __init__(self) -> None:
        self.running: set[Phase] = set()
        self.ended: dict[Phase, int] = dict.fromkeys(Phase, 0)
        self.seconds: dict[Phase, float] = dict.fromkeys(Phase, 0.0)
        self.frames = 0
        """Made for pullers, again and again where one asks again."""
        self._snapshot: Snapshot | None = None
        self._asked = bytearray()
        self._lock = threading.Lock()

    @contextmanager
    def phase(self, phase: Phase) -> Iterator[None]:
        """While this goes on, so does ``phase``."""
        self.running.add(phase)
        started = time.monotonic()
        try:
            yield
        finally:
            self.running.discard(phase)
            self.ended[phase] += 1
            self.seconds[phase] += time.monotonic() - started

    def frame(self, snapshot: Snapshot, number: int) -> None:
        """Frame ``number`` was made for a puller; called by the threads that make them."""
        with self._lock:
            if self._snapshot is None or self._snapshot.id != snapshot.id:
                self._asked = bytearray(snapshot.frames)
                self._snapshot = snapshot
            self._asked[number] = 1
            self.frames += 1

    def __str__(self) -> str:
        """One line for people: phases, and how far the newest puller is."""
        parts = [phase.value for phase in Phase if phase in self.running]
        if self._snapshot is not None and self._asked:
            asked, all_of_them = sum(self._asked), len(self._asked)
            percent = 100 * asked // all_of_them
            short = self._snapshot.id[:12]
            parts.append(f"{asked} of {all_of_them} frames of {short} asked for ({percent} %)")
        return ", ".join(parts) or "waiting for a puller"
