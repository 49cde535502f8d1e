"""Memory and processor time of processes and their descendants, read from outside (proc(5))."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path
from typing import Self

_INTERVAL = 0.1
_PEAK = re.compile(r"VmHWM:\s+(\d+) kB")
_UTIME = 11
"""Place of the user time behind the program's name in ``stat``. Three more times follow: in the
kernel, and both again of the descendants that have ended."""
_TICKS = os.sysconf("SC_CLK_TCK")


def peak_kib(pid: int) -> int:
    """Peak resident size of a process so far; 0 if it is gone."""
    try:
        found = _PEAK.search(Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0
    return int(found[1]) if found else 0


def family(pid: int) -> list[int]:
    """A process and all its descendants that live now."""
    found = [pid]
    for member in found:
        for listing in Path(f"/proc/{member}/task").glob("*/children"):
            try:
                found.extend(map(int, listing.read_text().split()))
            except OSError:
                continue
    return found


def processor_seconds(top: int | None = None) -> float:
    """Processor time of all descendants of this process: of those that live, and have ended.

    If ``top`` is given: of that process and its descendants.
    """
    ticks = 0
    for pid in family(os.getpid() if top is None else top):
        try:
            times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[_UTIME:]
        except OSError:
            continue
        own = 0 if pid == os.getpid() else int(times[0]) + int(times[1])
        ticks += own + int(times[2]) + int(times[3])
    return ticks / _TICKS


class MemoryWatch:
    """Looks at families of processes until left, ten times a second.

    Args:
        families: the first process of each, by name.
    """

    def __init__(self, families: dict[str, int]) -> None:
        self._families = families
        self._peaks = dict.fromkeys(families, 0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Look a last time."""
        self._stop.set()
        self._thread.join()

    @property
    def peaks_mib(self) -> dict[str, float]:
        """The most that each family took: the peaks of all that lived at one moment, together."""
        return {name: round(peak / 1024, 1) for name, peak in self._peaks.items()}

    def _watch(self) -> None:
        while not self._stop.wait(_INTERVAL):
            for name, pid in self._families.items():
                now = sum(map(peak_kib, family(pid)))
                self._peaks[name] = max(self._peaks[name], now)
