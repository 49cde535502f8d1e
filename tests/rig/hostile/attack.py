"""A thousand slow requests at once, made by slowhttptest."""

from __future__ import annotations

import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rig.programs import Agent

ATTACKS = {
    "heads that never end": ["-H", "-i", "3", "-u", "{url}/v1/snapshots"],
    "bodies that never end": ["-B", "-i", "3", "-t", "POST", "-u", "{url}/v1/snapshots"],
    "answers never read": ["-X", "-w", "1", "-y", "2", "-n", "5", "-z", "1", "-u", "{url}/readyz"],
}
CONNECTIONS, A_SECOND, SECONDS = 1000, 200, 60


@contextmanager
def attacked(agent: Agent, options: list[str]) -> Iterator[None]:
    """Have slowhttptest try to hold a thousand connections during the block."""
    filled = [option.format(url=agent.url) for option in options]
    attacker = subprocess.Popen(
        ["slowhttptest", "-c", str(CONNECTIONS), "-r", str(A_SECOND), "-l", str(SECONDS), *filled],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        time.sleep(CONNECTIONS / A_SECOND / 2)
        assert attacker.poll() is None
        yield
        assert attacker.poll() is None, "the attack ended before the pull: it proves nothing"
    finally:
        attacker.kill()
        attacker.wait()


def sent_away(agent: Agent) -> float:
    """Return the number of connections that the agent has closed or refused, from its metrics."""
    return sum(
        float(line.rpartition(" ")[2])
        for line in agent.get("/metrics").decode().splitlines()
        if line.startswith("plexodus_agent_connections_sent_away_total{")
    )
