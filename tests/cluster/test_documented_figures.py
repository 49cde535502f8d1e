"""The figures of docs/fleet.md and docs/scale.md are those of commands that anybody can repeat.

The exit codes of docs/fleet.md are those of the chart.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from typing import TYPE_CHECKING

import pytest
from rig.cluster.cluster import ROOT
from rig.cluster.fleet_report import FILE, Figures, write_report
from rig.cluster.node import Node
from rig.memory import Peaks
from rig.waiting import wait_until

from bench.scale_tables import Move, Scale, tables
from shared.program.exit_codes import ExitCode

if TYPE_CHECKING:
    from pathlib import Path

SHIM = "containerd-shim-runc-v2"


def test_figures_of_a_fleet_are_in_a_file(tmp_path: Path) -> None:
    """The file has all of them, because pytest captures the output of a test that passes."""
    file = tmp_path / "build" / "fleet.md"
    memory = {"kubelet": (2, 113), SHIM: (40, 15), "containerd": (2, 60)}
    pods, programs = {"a": 7, "b": 2}, {"kueue": 66, "kubelet": 80}
    write_report(Figures(2, 191.4, pods, programs, memory), file)
    text = file.read_text()
    for line in (
        "2 servers in 191 s.",
        "API requests of each pod of plexodus: 2, 7.",
        "| kubelet | 80 | 40.0 |",
        "| kueue | 66 | 33.0 |",
        "| containerd | 2 | 60 |",
        f"| {SHIM} | 40 | 15 |",
    ):
        assert f"{line}\n" in text, text
    assert str(FILE.relative_to(ROOT)) in (ROOT / "docs" / "fleet.md").read_text()


def test_shims_of_a_node_are_found(tmp_path: Path) -> None:
    """Only those of the node's own containerd are; each ends with its pod, so it is read before."""

    def start(socket: Path) -> subprocess.Popen[bytes]:
        # It forks nothing, which would have the same words for a moment.
        command = [SHIM, "-c", "read line", "-address", str(socket)]
        return subprocess.Popen(command, executable="/bin/sh", stdin=subprocess.PIPE)

    ours, other = start(tmp_path / "containerd.sock"), start(tmp_path / "b" / "containerd.sock")
    try:
        node = Node(tmp_path)
        wait_until(node.shims, 10, what="the shim")
        assert node.shims() == [ours.pid]
        peaks = Peaks()
        peaks.see(ours.pid, SHIM)
        assert peaks.largest().keys() == {SHIM}
    finally:
        for each in (ours, other):
            each.kill()
            each.communicate()


def _table(text: str, head: str) -> list[list[str]]:
    """Return the cells of a Markdown table, without its head, which begins with ``head``."""
    rows = text[text.index(f"| {head} ") :].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def _numbers(row: list[str]) -> list[float]:
    return [float(cell.replace(",", "")) for cell in row]


def test_limits_of_a_move_follow_from_the_moves_that_were_measured() -> None:
    """No number of cores passes the interpreter: docs/scale.md has what the program computes."""
    document = (ROOT / "docs" / "scale.md").read_text()
    rows = [_numbers(row[:5]) for row in _table(document, "entries | MB | wall, s")]
    moves = [
        Move(int(entries), int(size * 1e6), seconds, agent, puller, {"agent": 0, "puller": 0}, {})
        for entries, size, seconds, agent, puller in rows
    ]
    part: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    printed = tables(Scale({1: part, 2: part}, moves)).split("\n\n")
    costs, limits = printed[-3], printed[-1]
    for computed in (costs, limits):
        assert computed in document, computed
    python = 10e12 / 4e9 * 2.7 / 3600
    for row in _table(document, "link | hours on the wire"):
        hours = [float(cell.split()[1]) for cell in row[4:]]
        assert min(hours) > python - 0.05, row


def test_codes_that_end_a_job_are_documented() -> None:
    """docs/fleet.md says of each exit code whether the Job tries again, as the chart has it."""
    job = (ROOT / "charts" / "plexodus" / "templates" / "_job.tpl").read_text()
    final, again, _ = _table((ROOT / "docs" / "fleet.md").read_text(), "exit code of `pull`")
    policy = re.findall(r"values: \[(.*)\]", job)
    assert policy == [final[0]]
    ends, retried = (set(map(int, re.findall(r"\d+", row[0]))) for row in (final, again))
    assert ends | retried == set(ExitCode) - {ExitCode.OK}
    assert not ends & retried


@pytest.mark.cluster
def test_chart_of_a_fleet_is_measured() -> None:
    """The bench renders all migrations, and docs/fleet.md has its counts and sizes."""
    document = (ROOT / "docs" / "fleet.md").read_text()
    documented = _table(document, "migrations | seconds, median")
    given = ("--migrations", *(row[0] for row in documented), "--rounds", "2")
    command = [sys.executable, "-m", "bench.fleet_chart", *given]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    rows = _table(done.stdout, "migrations | seconds, median")
    assert [row[4] for row in rows] == ["11", "2,007"] == [row[4] for row in documented]
    assert [row[5] for row in rows] == [row[5] for row in documented]
    stored = [_numbers(row[6:]) for row in documented]
    assert [_numbers(row[6:]) for row in rows] == [pytest.approx(each, rel=0.1) for each in stored]
    assert all(_numbers([row[1], row[3]]) > [0, 0] for row in rows)
    assert all(re.fullmatch(r"\d+\.\d\d to \d+\.\d\d", row[2]) for row in rows)
