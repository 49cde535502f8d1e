"""A puller is killed while its request to stop Plex waits for the end of an earlier undo."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING

from rig.cutover.cutovers import phase
from rig.waiting import wait_until

from shared.wire.protocol import METRICS

if TYPE_CHECKING:
    from rig.plex.commands import PlexCommands
    from rig.programs import Agent

SETTINGS = {"lease_seconds": 600.0, "stop_seconds": 10}


def wanted(name: str) -> bytes:
    """Return the body of a request to stop Plex."""
    return json.dumps({"id": name * 32, "puller": "pod"}).encode()


def test_plex_is_not_stopped_for_a_puller_that_was_killed(agent: Agent, plex: PlexCommands) -> None:
    """It sends no undo, and Plex would be down for a whole lease."""
    agent.ask("POST", "/v1/cutover", wanted("a"))
    (plex.here / "broken").touch()
    headers = {"Authorization": f"Bearer {agent.token}"}
    with closing(agent.connect()) as http:
        http.request("DELETE", f"/v1/cutover/{'a' * 32}", None, headers)
        assert http.getresponse().status == 409
    assert phase(agent) == "undoing"
    with closing(agent.connect()) as http:
        http.request("POST", "/v1/cutover", wanted("b"), headers)
        wait_until(lambda: b"_requests_running 2.0\n" in agent.get(METRICS))
    (plex.here / "broken").unlink()
    assert agent.requests().count("POST /v1/cutover") == 2
    assert phase(agent) == "idle"
    assert plex.is_running()
    assert plex.story.count("stop") == 1
