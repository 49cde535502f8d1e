"""Straight lines through measured points, and how far they miss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Line:
    """A quantity that grows with the number of entries."""

    base: float
    per_entry: float

    def at(self, entries: float) -> float:
        """Return the quantity for so many entries."""
        return self.base + self.per_entry * entries


def line_through(points: Mapping[int, float]) -> Line:
    """Return the line of least squares through ``points``, the quantities by number of entries."""
    count = len(points)
    mean_x, mean_y = sum(points) / count, sum(points.values()) / count
    spread = sum((x - mean_x) ** 2 for x in points)
    if not spread:
        return Line(mean_y, 0.0)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points.items()) / spread
    return Line(mean_y - slope * mean_x, slope)


def miss(points: Mapping[int, float]) -> float | None:
    """Return by which share the largest point is above the line through all others.

    Very small points can lie on a line that falls to nothing. Then there is no such share.
    """
    largest = max(points)
    others = {entries: value for entries, value in points.items() if entries != largest}
    expected = line_through(others).at(largest)
    return points[largest] / expected - 1 if expected > 0 else None


def two_costs(first: tuple[float, ...], second: tuple[float, ...]) -> tuple[float, float]:
    """Return the costs of an entry and of a byte, from two moves.

    Args:
        first: entries, bytes and cost of a move.
        second: those of another one, with another number of bytes an entry.
    """
    (entries, size, cost), (others, more, costs) = first, second
    scale = entries * more - others * size
    return (cost * more - costs * size) / scale, (entries * costs - others * cost) / scale
