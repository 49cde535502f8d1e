"""The figures of a fleet's move, in a file that outlives the test: pytest shows no output of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rig.cluster.cluster import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FILE = ROOT / "build" / "fleet.md"
"""The file that docs/fleet.md names."""


@dataclass(frozen=True)
class Figures:
    """The figures of one run."""

    servers: int
    seconds: float
    requests_by_pod: Mapping[str, int]
    """API requests of each pod of plexodus."""
    requests_by_program: Mapping[str, int]
    """API requests of each program, by the name that it gives itself."""
    memory: Mapping[str, tuple[int, int]]
    """Number of processes and the largest peak in MB, by program."""


def write_report(figures: Figures, file: Path = FILE) -> None:
    """Write the figures as Markdown."""
    pods = ", ".join(str(count) for count in sorted(figures.requests_by_pod.values()))
    programs = sorted(figures.requests_by_program.items(), key=lambda each: (-each[1], each[0]))
    memory = sorted(figures.memory.items())
    lines = [
        "# The last run of test_fleet_kueue.py",
        "",
        f"{figures.servers} servers in {figures.seconds:.0f} s.",
        f"API requests of each pod of plexodus: {pods}.",
        "",
        "| program | API requests | for one server |",
        "| --- | --- | --- |",
        *(f"| {name} | {count:,} | {count / figures.servers:.1f} |" for name, count in programs),
        "",
        "| program | processes seen | largest peak, MB |",
        "| --- | --- | --- |",
        *(f"| {name} | {count} | {most} |" for name, (count, most) in memory),
        "",
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines))
