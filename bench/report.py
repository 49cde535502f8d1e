"""The figures of a comparison as a table and as a picture."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

if TYPE_CHECKING:
    from pathlib import Path

    from bench.peers import Measurement

OURS = "plexodus"


@dataclass
class Results:
    """All measurements, by library and method."""

    link: str
    bytes_per_second: float = 0.0
    """Speed of a shaped link; 0 without one."""
    moves: dict[str, dict[str, list[Measurement]]] = field(default_factory=dict)

    def add(self, library: str, peer: str, made: Measurement) -> None:
        """Take one more move in."""
        self.moves.setdefault(library, {}).setdefault(peer, []).append(made)

    def median(self, library: str, peer: str) -> float:
        """Return the median of the seconds."""
        return statistics.median(made.seconds for made in self.moves[library][peer])

    def median_cpu(self, library: str, peer: str) -> float:
        """Return the median of the processor seconds of both sides."""
        return statistics.median(made.cpu_seconds for made in self.moves[library][peer])


_HEADINGS = (
    "library  method   rounds   median      min      max      cpu  ours/wall  ours/cpu  wall/wire"
)


def table(results: Results) -> str:
    """Return the figures of all methods as text.

    Wall time is in seconds: median of the rounds, least and most. CPU time is the median of both
    sides together. Then follow our median divided by the method's, of both, and on a shaped link
    the median of wall time divided by the time that its bytes take on the wire. Our memory is
    below.
    """
    lines = [results.link, _HEADINGS]
    for library, peers in results.moves.items():
        for peer, made in peers.items():
            seconds = [each.seconds for each in made]
            median, cpu = results.median(library, peer), results.median_cpu(library, peer)
            line = f"{library:8} {peer:8} {len(made):6} {median:8.2f}"
            line += f" {min(seconds):8.2f} {max(seconds):8.2f} {cpu:8.2f}"
            if OURS in peers:
                line += f"  {results.median(library, OURS) / median:9.2f}"
                line += f"  {results.median_cpu(library, OURS) / cpu:8.2f}"
            wire = statistics.median(each.wire_bytes for each in made)
            if wire:  # cp sends nothing
                line += f"  {median * results.bytes_per_second / wire:9.2f}"
            lines.append(line)
        for side in ("agent", "puller"):
            peaks = [each.memory_mib[side] for each in peers.get(OURS, ())]
            if peaks:
                lines.append(f"{library:8} {side}: at most {max(peaks):.0f} MiB resident")
    return "\n".join(lines)


def plot(results: Results, path: Path) -> None:
    """Every single move as a dot, by method, one panel a library."""
    figure = Figure(figsize=(5 * len(results.moves), 4), layout="constrained")
    panels = figure.subplots(1, len(results.moves), squeeze=False)[0]
    for panel, (library, peers) in zip(panels, results.moves.items(), strict=True):
        for peer, made in peers.items():
            panel.plot([peer] * len(made), [each.seconds for each in made], "o", alpha=0.6)
        panel.set_title(f"{library}, {results.link}")
        panel.set_ylabel("seconds until durable")
        panel.set_yscale("log")
    figure.savefig(path)
