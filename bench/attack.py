"""How much of its speed a pull keeps while the agent is attacked: two pulls in turns, as a ratio.

``PYTHONPATH=tests .venv/bin/python -m bench.attack``, after ``tests/install-vm-tools all``.
"""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from rig.hostile.attack import ATTACKS, attacked, sent_away
from rig.programs import Agent, Puller

_ROUNDS = 3
_FILES, _BYTES = 60, 8_000_000


def main() -> None:
    """Print a line for each kind of attack."""
    folder = Path(tempfile.mkdtemp(prefix="plexodus-attack-"))
    library = folder / "Library"
    library.mkdir()
    for number in range(_FILES):
        (library / str(number)).write_bytes(os.urandom(_BYTES))
    try:
        for name, options in ATTACKS.items():
            agent = Agent(folder / "state", library, folder / "agent.log")
            agent.pair()
            agent.start()
            try:
                ratio = statistics.median(_ratio(agent, options, folder) for _ in range(_ROUNDS))
                refused = sent_away(agent)
            finally:
                agent.kill()
            print(f"{name}: {ratio:.2f} of the speed without, {refused:.0f} connections refused")
    finally:
        shutil.rmtree(folder)


def _ratio(agent: Agent, options: list[str], folder: Path) -> float:
    """Return the seconds of a pull without the attack, divided by those of one under it."""
    alone = _pull(agent, folder)
    with attacked(agent, options):
        return alone / _pull(agent, folder)


def _pull(agent: Agent, folder: Path) -> float:
    target = folder / "config"
    target.mkdir()
    started = time.monotonic()
    finished = Puller(target, folder / "puller.log", agent.pairing).pull()
    seconds = time.monotonic() - started
    if finished.code != 0:
        raise SystemExit(finished.text)
    shutil.rmtree(target)
    return seconds


if __name__ == "__main__":
    main()
