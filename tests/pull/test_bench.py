"""The benches run with every method. Their figures are not judged here."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from rig.programs import clean_environment

from bench.extrapolation import miss
from bench.peers import OVER_SSH, PEERS, SSHD
from bench.scale_tables import Move, Scale, costs, tables

pytestmark = pytest.mark.long

ROOT = Path(__file__).parent.parent.parent
_PNG = b"\x89PNG\r\n"


def run(module: str, *options: str | Path) -> str:
    """Return the output of a bench; it must succeed."""
    done = subprocess.run(
        [sys.executable, "-m", module, *options],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=clean_environment() | {"PYTHONPATH": "tests"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_method_moves_a_small_library(tmp_path: Path) -> None:
    """Each method that is installed succeeds and is in the table, the figures and the picture.

    A slow method is not run again, so that a comparison ends within an hour.
    """
    peers = [peer for peer in PEERS if peer not in OVER_SSH or os.access(SSHD, os.X_OK)]
    out = run(
        "bench.compare", "--library", "smoke", "--folder", tmp_path, "--output",
        tmp_path / "results", "--peers", *peers, "--rounds", "2", "--slow", "0",
    )  # fmt: skip
    figures = json.loads((tmp_path / "results" / "loopback.json").read_text())
    moves = figures["moves"]["smoke"]
    assert {peer: len(each) for peer, each in moves.items()} == {
        peer: 2 if peer == "plexodus" else 1 for peer in peers
    }
    assert all(move["seconds"] > 0 for each in moves.values() for move in each)
    assert all(move["cpu_seconds"] > 0 for each in moves.values() for move in each)
    assert moves["plexodus"][0]["memory_mib"].keys() == {"agent", "puller"}
    assert (tmp_path / "results" / "loopback.png").read_bytes().startswith(_PNG)
    lines = out.splitlines()
    assert all(any(line.startswith(f"smoke    {peer} ") for line in lines) for peer in peers)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["results"]


@pytest.mark.long
def test_downtime_is_measured(tmp_path: Path) -> None:
    """The downtime bench prints each figure, and leaves no file and no mount behind."""
    small = "--library", "smoke", "--rounds", "1", "--database", "50000000"
    out = run("bench.downtime", *small, "--folder", tmp_path)
    down = re.search(r"^down: median (\S+) s", out, re.MULTILINE)
    assert down is not None, out
    assert float(down[1]) > 0
    for line in ("of S: median ", "delta: ", "database of "):
        assert f"\n{line}" in out, out
    assert not list(tmp_path.iterdir())
    assert str(tmp_path) not in Path("/proc/mounts").read_text()


def cells(table: str, row: str) -> list[str]:
    """Return the cells of the row of a Markdown table that begins with ``row``."""
    [line] = [line for line in table.splitlines() if line.startswith(f"| {row} |")]
    return [cell.strip() for cell in line.split("|")[2:-1]]


@pytest.mark.long
def test_growth_is_measured_and_extrapolated(tmp_path: Path) -> None:
    """Each table has each part at each point, and the line through the points is NumPy's.

    The mounts of the largest tree are gone in the end.
    """
    points = "--points", "600", "1200", "--times", "2", "--content", "120000000"
    out = run("bench.scale", *points, "--folder", tmp_path, "--output", tmp_path / "results")
    figures = json.loads((tmp_path / "results" / "scale.json").read_text())
    parts = {int(entries): each for entries, each in figures["parts"].items()}
    expected = 3 if os.geteuid() == 0 else 2
    assert len(parts) == expected
    assert all(seconds > 0 for each in parts.values() for seconds in each["scan"].values())

    sizes = [parts[entries]["scan"]["manifest_bytes"] for entries in sorted(parts)]
    slope, base = np.polyfit(sorted(parts), sizes, 1)
    at_last = float(cells(out, "manifest as sent and stored")[-1].replace(",", ""))
    assert at_last == pytest.approx((base + slope * 50e6) / 1e6, rel=0.01)

    steps, memory, _, moves, stages, _, limits = out.split(":\n\n")[1:]
    for table, rows in (steps, 7), (memory, 6), (stages, 12):
        lines = [line for line in table.splitlines() if line.startswith("| ")][2:]
        assert len(lines) == rows, table
        assert all("nan" not in line and "| |" not in line for line in lines), table
    assert [cells(moves, f"{move['entries']:,}")[0] for move in figures["moves"]]
    assert [float(cells(limits, f"{speed} Gbit/s")[0]) for speed in (1, 10, 25)] == pytest.approx(
        [10e12 * 8 / (speed * 1e9 * 1448 / 1538) / 3600 for speed in (1, 10, 25)], rel=0.01
    )
    assert sorted(each.name for each in tmp_path.iterdir()) == ["results"]
    assert str(tmp_path) not in Path("/proc/mounts").read_text()


def _move(entries: int, content: int) -> Move:
    """Return a move that costs a fixed amount for an entry and for a byte."""
    agent = 0.7 + 20e-6 * entries + 3e-9 * content
    puller = 0.6 + 40e-6 * entries + 5e-9 * content
    return Move(entries, content, 1.0, agent, puller, {"agent": 0, "puller": 0}, {})


MOVES = [_move(10_000, 20_000_000), _move(10**6, 2 * 10**9), _move(10_000, 2 * 10**9)]


def test_costs_of_an_entry_and_of_a_byte_are_told_apart() -> None:
    """The start of the programs is counted neither as a cost of entries nor as one of bytes."""
    found = costs(MOVES)
    assert found["agent"] == pytest.approx((20e-6, 3e-9))
    assert found["puller"] == pytest.approx((40e-6, 5e-9))


def test_growth_that_is_not_linear_is_seen() -> None:
    """A part that takes a quarter more at the largest point than the others say is shown so."""
    assert miss({10: 21.0, 100: 201.0, 1000: 1.25 * 2001.0}) == pytest.approx(0.25)
    assert (miss({10: 100.0, 100: 10_000.0, 1000: 1e6}) or 0) > 1


def test_points_on_a_falling_line() -> None:
    """Measuring noise of very small points is not compared with a quantity below zero."""
    points = {600: 0.0077, 1200: 0.0045, 2400: 0.0044}
    assert miss(points) is None

    def part(seconds: float) -> dict[str, dict[str, float]]:
        return defaultdict(lambda: defaultdict(lambda: seconds))

    parts = {entries: part(seconds) for entries, seconds in points.items()}
    table = tables(Scale(parts, MOVES))
    assert "| - |" in table
    assert "nan" not in table
