"""``/v1/events``: what a program that follows the move gets, and how it ends."""

from __future__ import annotations

import subprocess
import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import pytest
from rig.page import events

from shared.wire import protocol

if TYPE_CHECKING:
    from rig.programs import Agent, Puller


def test_events_for_curl(agent: Agent, puller: Puller) -> None:
    """A program gets the state and each line of the log, and after a break only what it missed."""
    assert puller.pull().code == 0
    first = events(agent, 2)
    assert first[-1][1] == "move" or first[0][1] == "log"
    lines = [(number, data["about"]) for number, name, data in first if name == "log"]
    text = (agent.state / "migration.jsonl").read_bytes()
    assert [int(number) for number, _ in lines][-1] == len(text)
    assert len(lines) == text.count(b"\n")
    assert any("Live pass" in about or "entries" in about for _, about in lines)
    again = events(agent, 2, f"Last-Event-ID: {lines[-2][0]}")
    assert [number for number, name, _ in again if name == "log"] == [lines[-1][0]]


@pytest.mark.parametrize("last", ["9" * 5000, "-1", "x", "99999999"])
def test_event_id_that_is_none_of_ours(agent: Agent, puller: Puller, last: str) -> None:
    """A client with an id of another log gets all lines."""
    assert puller.pull().code == 0
    lines = [name for _, name, _ in events(agent, 2, f"Last-Event-ID: {last}") if name == "log"]
    assert len(lines) == (agent.state / "migration.jsonl").read_bytes().count(b"\n")


def test_streams_are_limited(agent: Agent) -> None:
    """Clients that follow the move leave connections for a puller at the same address."""
    with ExitStack() as stack:
        statuses = []
        for _ in range(18):
            http = stack.enter_context(closing(agent.connect()))
            headers = {"Authorization": f"Bearer {agent.token}"}
            http.request("GET", protocol.EVENTS, headers=headers)
            statuses.append(http.getresponse().status)
    assert statuses == [200] * 16 + [503] * 2


def test_head_of_events_has_no_body(agent: Agent) -> None:
    """A program that only asks for the headers is not kept waiting."""
    with closing(agent.connect()) as http:
        http.request("HEAD", protocol.EVENTS, headers={"Authorization": f"Bearer {agent.token}"})
        response = http.getresponse()
        assert (response.status, response.read()) == (200, b"")
        assert response.headers["Content-Type"] == "text/event-stream"
        assert "no-cache" in response.headers["Cache-Control"]


def test_watcher_does_not_delay_the_end_of_the_agent(agent: Agent) -> None:
    """An open stream of events ends when the agent is asked to end."""
    url = f"{agent.url}{protocol.EVENTS}"
    with subprocess.Popen(
        ["curl", "-ksN", "-u", f"x:{agent.token}", url], stdout=subprocess.PIPE
    ) as curl:
        assert curl.stdout is not None
        curl.stdout.readline()
        started = time.monotonic()
        assert agent.stop() == 0
        assert time.monotonic() - started < 4
        curl.communicate(timeout=5)
        assert curl.returncode == 0
