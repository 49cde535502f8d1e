"""The summary of a campaign as Markdown: faults by mode, what each costs, and the violations."""

from __future__ import annotations

from collections import Counter, defaultdict
from statistics import mean
from typing import TYPE_CHECKING

from campaign.story import Mode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from campaign.machine import Outcome

_OFTEN = 40
"""A fault that has an effect in one of ten stories is missing after so many in one of seventy."""
_MODES = [mode.value for mode in Mode]


class Table:
    """Adds up the results of stories."""

    def __init__(self) -> None:
        self._calm: defaultdict[str, list[Outcome]] = defaultdict(list)
        self._tried: Counter[tuple[str, str]] = Counter()
        self._kept: Counter[tuple[str, str]] = Counter()
        self._frames: defaultdict[str, list[float]] = defaultdict(list)
        self._seconds: defaultdict[str, list[float]] = defaultdict(list)
        self._codes: Counter[int] = Counter()
        self._missed: Counter[str] = Counter()
        self.stories = self.undecided = self.unjudged = 0

    def add_calm(self, outcome: Outcome) -> None:
        """Add a story without faults."""
        self._calm[outcome.mode].append(outcome)

    def add(self, outcome: Outcome, calm: Outcome) -> None:
        """Add a story. Its faults share what it took more than ``calm``, one without faults."""
        count = len(outcome.happened)
        self.stories += 1
        if outcome.failure:
            self.unjudged += 1
            return
        self._missed.update(outcome.missed)
        self.undecided += outcome.undecided
        self._codes.update(outcome.codes)
        for fault in outcome.happened:
            self._tried[fault, outcome.mode] += 1
            self._kept[fault, outcome.mode] += not outcome.violations
            self._frames[fault].append((outcome.frames - calm.frames) / count)
            self._seconds[fault].append((outcome.seconds - calm.seconds) / count)

    @property
    def faults(self) -> int:
        """Number of faults that took place."""
        return self._tried.total()

    @property
    def kept(self) -> int:
        """Number of those in stories that ended as promised."""
        return self._kept.total()

    def without_effect(self) -> list[str]:
        """Return the faults that never took place, although they were drawn often enough."""
        happened = {fault for fault, _ in self._tried}
        return sorted(
            fault
            for fault, count in self._missed.items()
            if count >= _OFTEN and fault not in happened
        )

    def lines(self, names: Sequence[str]) -> list[str]:
        """Return the table with a row for each of ``names``."""
        head = ["fault", *_MODES, "tried", "as promised", "frames", "seconds"]
        rows = [head, ["---", *["---:"] * (len(head) - 1)]]
        for name in names:
            tried = [self._tried[name, mode] for mode in _MODES]
            kept = sum(self._kept[name, mode] for mode in _MODES)
            costs = (self._frames[name], self._seconds[name])
            shown = [f"{mean(cost):+.1f}" if cost else "" for cost in costs]
            rows.append([name, *map(str, tried), str(sum(tried)), str(kept), *shown])
        sums = [sum(self._tried[name, mode] for name in names) for mode in _MODES]
        rows.append(["all", *map(str, sums), str(self.faults), str(self.kept), "", ""])
        return [f"| {' | '.join(row)} |" for row in rows]

    def notes(self) -> list[str]:
        """Return what belongs below the table."""
        calm = ", ".join(
            f"{mode} {mean(each.frames for each in stories):.0f} frames in"
            f" {mean(each.seconds for each in stories):.1f} s"
            for mode, stories in self._calm.items()
        )
        codes = ", ".join(f"{code}: {count}" for code, count in sorted(self._codes.items()))
        missed = "were drawn whose moment did not come, or that found nothing to break"
        return [
            f"{self.stories} stories, {self.faults} faults. {self._missed.total()} more {missed}.",
            f"{self.unjudged} stories were not judged, because the campaign itself failed.",
            f"{self.undecided} pulls failed after the commit; a later one published.",
            f"Without faults, on average of the speeds: {calm}.",
            f"Pulls by exit code (minus the signal if killed): {codes}.",
        ]
