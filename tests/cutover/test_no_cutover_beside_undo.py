"""Another puller's cutover ends at the end of ``pull --no-cutover``: the agent starts Plex."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from rig.cutover.cutovers import phase
from rig.cutover.hidden_plex import HiddenPlex, hidden_plex
from rig.paused_pull import STANDING, paused_pull
from rig.plex.commands import SERVER

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rig.programs import Agent, Puller

SETTINGS = {"lease_seconds": 60.0, "stop_seconds": 10}
NAME = "a" * 32


@pytest.fixture
def plex(tmp_path: Path, library: Path) -> Iterator[HiddenPlex]:
    """Start a Plex that changes nothing, and whose start the agent does not watch."""
    with hidden_plex(tmp_path / "plex", library / SERVER) as plex:
        yield plex


@pytest.mark.parametrize("call", [2, 3], ids=["before the last check", "after it"])
def test_undo_between_the_last_questions(
    agent: Agent, puller: Puller, plex: HiddenPlex, call: int
) -> None:
    """It begins and ends between two of them: the name of the last cutover gives it away."""
    plex.stop()
    person = replace(puller, cutover=False)
    with paused_pull(person, *STANDING, call=call) as process:
        request = {"id": NAME, "puller": "another pod"}
        agent.ask("POST", "/v1/cutover", json.dumps(request).encode())
        agent.ask("DELETE", f"/v1/cutover/{NAME}")
        assert plex.is_running()
    refused = person.finished(process)
    assert refused.code == 16, refused.text
    assert str(plex.database) in refused.reason()
    assert phase(agent) == "idle"
    assert not (person.target / "Library").exists()
