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
    moves: dict[str, dict[str, list[Measurement]]] = field(default_factory=dict)

    def add(self, library: str, peer: str, made: Measurement) -> None:
        """Take one more move in."""
        self.moves.setdefault(library, {}).setdefault(peer, []).append(made)

    def median(self, library: str, peer: str) -> float:
        """Seconds."""
        return statistics.median(made.seconds for made in self.moves[library][peer])


def table(results: Results) -> str:
    """Medians, least and most in seconds; ours divided by each; our memory."""
    lines = [f"{results.link}", "library  method    median      min      max  plexodus/method"]
    for library, peers in results.moves.items():
        for peer, made in peers.items():
            seconds = [each.seconds for each in made]
            median = results.median(library, peer)
            ratio = f"{results.median(library, OURS) / median:.2f}" if OURS in peers else ""
            lines.append(
                f"{library:8} {peer:8} {median:7.2f}  {min(seconds):7.2f}  {max(seconds):7.2f}"
                f"  {ratio}"
            )
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
