"""The figures of :mod:`bench.scale`, and the tables of docs/scale.md that follow from them."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bench.extrapolation import line_through, miss, two_costs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

ENTRIES, CONTENT = 50_000_000, 10_000_000_000_000
"""The library that is extrapolated to."""
_GIGABITS = 1, 10, 25
_CORES = 2, 4, 8, 16
_PAYLOAD = 1448 / 1538
"""Share of a link that carries content: the rest is Ethernet, IP and TCP (RFC 9293, timestamps)."""

_INTERPRETER = 2.7 / 4e9
"""Seconds a byte in which either program runs Python: docs/performance.md, by perf(1) for L3. Only
one core at a time does that, so no number of cores makes a move faster than this."""

_THREE_DIGITS = 100

_SECONDS = (
    ("scan", "scan", "scan, manifest and plan (agent)"),
    ("delta", "delta", "scan with Plex stopped, nothing changed (agent)"),
    ("second-walk", "second walk", "second walk of the library (agent)"),
    ("second-walk", "open", "manifest read after a restart (agent)"),
    ("read", "read", "manifest read and checked (puller)"),
    ("agent-plan", "index", "index of an archive, 200 KB an entry (agent)"),
    ("puller-plan", "replay", "journal replayed, 200 KB an entry (puller)"),
)
_MEMORY = (
    ("scan", "scan (agent)"),
    ("delta", "scan with Plex stopped (agent)"),
    ("second-walk", "second walk (agent)"),
    ("read", "manifest read and checked (puller)"),
    ("agent-plan", "plan and index, 200 KB an entry (agent)"),
    ("puller-plan", "plan and full journal, 200 KB an entry (puller)"),
)
_SIZES = (
    ("scan", "manifest_bytes", "manifest as sent and stored"),
    ("scan", "state_bytes", "a snapshot in the agent's state folder, without digests"),
    ("declare", "journal_bytes", "journal, 200 KB an entry"),
    ("agent-plan", "index_bytes", "index of an archive, 200 KB an entry"),
)


@dataclass(frozen=True)
class Move:
    """One whole move of a library by the programs, and by stages in one process."""

    entries: int
    content: int
    """Bytes of all files."""
    seconds: float
    agent: float
    """Processor seconds."""
    puller: float
    memory_mib: dict[str, float]
    stages: dict[str, float]
    """Processor seconds by stage."""


@dataclass
class Scale:
    """All figures."""

    parts: dict[int, dict[str, dict[str, float]]] = field(default_factory=dict)
    """By number of entries, part, and figure."""
    moves: list[Move] = field(default_factory=list)

    def to_json(self) -> str:
        """Return all figures as text."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    def figure(self, part: str, name: str) -> dict[int, float]:
        """Return one figure of one part, by number of entries."""
        return {entries: parts[part][name] for entries, parts in sorted(self.parts.items())}


def tables(found: Scale) -> str:
    """Return all tables, in Markdown."""
    parts = [
        ("Processor seconds", _grown(found, _SECONDS, _number)),
        (
            "Peak memory, MiB",
            _grown(found, [(part, "peak_mib", name) for part, name in _MEMORY], _number),
        ),
        ("Sizes, MB", _grown(found, _SIZES, lambda value: _number(value / 1e6))),
        ("Whole moves", _moves(found.moves)),
        ("Stages", _stages(found.moves)),
        ("Costs", _costs(found.moves)),
        ("Limits", _limits(found.moves)),
    ]
    return "\n\n".join(f"{title}:\n\n{table}" for title, table in parts)


def costs(moves: Sequence[Move]) -> dict[str, tuple[float, float]]:
    """Return processor seconds of an entry and of a byte, by side.

    They follow from the move with the most entries and the last one, which has large files. What
    the smallest move takes is subtracted from both: the programs' start is in it.
    """
    few, many, large = moves[0], max(moves[:-1], key=lambda move: move.entries), moves[-1]

    def above(move: Move, side: str) -> tuple[float, ...]:
        cost = getattr(move, side) - getattr(few, side)
        return move.entries - few.entries, move.content - few.content, cost

    return {side: two_costs(above(many, side), above(large, side)) for side in ("agent", "puller")}


def _grown(
    found: Scale, rows: Iterable[tuple[str, str, str]], shown: Callable[[float], str]
) -> str:
    """Return a table of figures by number of entries, with their extrapolation."""
    body = []
    for part, name, title in rows:
        points = found.figure(part, name)
        line = line_through(points)
        each = [shown(value) for value in points.values()]
        share = miss(points)
        off = "-" if share is None else f"{100 * share:+.0f} %"
        body.append([title, *each, shown(line.per_entry * 1e6), off, shown(line.at(ENTRIES))])
    points_of = [f"{entries:,}" for entries in sorted(found.parts)]
    return _table(["", *points_of, "a million more", "miss", f"{ENTRIES:,}"], body)


def _moves(moves: Sequence[Move]) -> str:
    body = [
        [
            f"{move.entries:,}",
            _number(move.content / 1e6),
            _number(move.seconds),
            _number(move.agent),
            _number(move.puller),
            f"{move.entries / move.agent:,.0f}",
            f"{move.entries / move.puller:,.0f}",
            _number(move.content / 1e6 / move.agent),
            _number(move.content / 1e6 / move.puller),
            " / ".join(_whole(move.memory_mib[side]) for side in ("agent", "puller")),
        ]
        for move in moves
    ]
    heads = ["entries", "MB", "wall, s", "agent, s", "puller, s"]
    heads += ["entries/s a core, agent", "puller", "MB/s a core, agent", "puller", "memory, MiB"]
    return _table(heads, body)


def _stages(moves: Sequence[Move]) -> str:
    body = [[stage, *(_number(move.stages[stage]) for move in moves)] for stage in moves[0].stages]
    return _table(
        ["stage", *(f"{move.entries:,}, {move.content / 1e6:,.0f} MB" for move in moves)], body
    )


def _costs(moves: Sequence[Move]) -> str:
    body = []
    for side, (entry, byte) in costs(moves).items():
        total = entry * ENTRIES + byte * CONTENT
        one_core = CONTENT / total / 1e6
        body.append(
            [
                side,
                _number(entry * 1e6),
                _number(byte * 1e9),
                _number(total / 3600),
                _number(one_core),
            ]
        )
    heads = [
        "",
        "microseconds an entry",
        "seconds a GB",
        "hours, 10 TB in 50 million",
        "MB/s a core",
    ]
    return _table(heads, body)


def _limits(moves: Sequence[Move]) -> str:
    """Return which limit a move of 10 TB in 50 million entries reaches first."""
    needs = {side: entry * ENTRIES + byte * CONTENT for side, (entry, byte) in costs(moves).items()}
    body = []
    for gigabits in _GIGABITS:
        wire = CONTENT * 8 / (gigabits * 1e9 * _PAYLOAD)
        row = [f"{gigabits} Gbit/s", _number(wire / 3600)]
        python = CONTENT * _INTERPRETER
        can_fill = python <= wire
        row += [_number(each / wire) if can_fill else "no number" for each in needs.values()]
        for cores in _CORES:
            limits = {"link": wire} | {side: each / cores for side, each in needs.items()}
            limits["interpreter"] = python
            first = max(limits, key=lambda name: limits[name])
            row.append(f"{first}, {limits[first] / 3600:.1f} h")
        body.append(row)
    heads = ["link", "hours on the wire", "cores to fill it: agent", "puller"]
    return _table([*heads, *(f"{cores} cores a side" for cores in _CORES)], body)


def _table(heads: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _number(value: float) -> str:
    """Return three digits, or all before the point."""
    return f"{value:,.0f}" if abs(value) >= _THREE_DIGITS else f"{value:.3g}"


def _whole(value: float) -> str:
    return f"{value:,.0f}"
