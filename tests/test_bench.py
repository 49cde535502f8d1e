"""The comparison runs, with every method: what it measures is not judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from rig.programs import clean_environment

from bench.peers import PEERS

ROOT = Path(__file__).parent.parent
_PNG = b"\x89PNG\r\n"


def test_every_method_moves_a_small_library(tmp_path: Path) -> None:
    """Each ends well and is in the table, the figures and the picture; ours with its memory."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "bench.compare", "--library", "smoke", "--rounds", "1"),
            *("--folder", tmp_path, "--output", tmp_path / "results"),
        ],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=clean_environment() | {"PYTHONPATH": "tests"},
    )

    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "results" / "loopback.json").read_text())
    moves = figures["moves"]["smoke"]
    assert set(moves) == set(PEERS)
    assert all(move["seconds"] > 0 for each in moves.values() for move in each)
    assert moves["plexodus"][0]["memory_mib"].keys() == {"agent", "puller"}
    assert (tmp_path / "results" / "loopback.png").read_bytes().startswith(_PNG)
    lines = done.stdout.splitlines()
    assert all(any(line.startswith(f"smoke    {peer} ") for line in lines) for peer in PEERS)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["results"]
