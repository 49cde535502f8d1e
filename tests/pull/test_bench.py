"""The benches run with every method. Their figures are not judged here."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rig.programs import clean_environment

from bench.peers import OVER_SSH, PEERS, SSHD

ROOT = Path(__file__).parent.parent.parent
_PNG = b"\x89PNG\r\n"


def run(module: str, *options: str | Path) -> str:
    """Return the output of a bench for one round with a small library; it must succeed."""
    done = subprocess.run(
        [sys.executable, "-m", module, "--library", "smoke", "--rounds", "1", *options],
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
        "bench.compare", "--folder", tmp_path, "--output", tmp_path / "results", "--peers", *peers,
        "--rounds", "2", "--slow", "0",
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
    out = run("bench.downtime", "--database", "50000000", "--folder", tmp_path)
    down = re.search(r"^down: median (\S+) s", out, re.MULTILINE)
    assert down is not None, out
    assert float(down[1]) > 0
    for line in ("of S: median ", "delta: ", "database: "):
        assert f"\n{line}" in out, out
    assert not list(tmp_path.iterdir())
    assert str(tmp_path) not in Path("/proc/mounts").read_text()
