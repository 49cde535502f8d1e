"""Limits for strangers and stalled clients, tested from outside on real sockets."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import pytest
from rig.oracle import rsync_differences

from agent.server.auth import WrongTokens
from agent.server.connections import party

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rig.programs import Agent, Puller

LIMITS = """
[limits]
connections = 12
connections_per_address = 8
header_seconds = 1
body_seconds = 1
idle_seconds = 4
"""
SOON = 3.0
"""Seconds in which a limit of one second must have shown."""


@pytest.fixture
def limited(tmp_path: Path, library: Path, new_agent: Callable[[Path], Agent]) -> Agent:
    """Start an agent with limits that a test need not wait for."""
    (tmp_path / "agent.toml").write_text(LIMITS)
    agent = new_agent(library)
    agent.pair()
    agent.start("--config", tmp_path / "agent.toml")
    return agent


def raw(agent: Agent, source: str = "127.0.0.1") -> socket.socket:
    """Open a TCP connection without sending anything."""
    return socket.create_connection(("127.0.0.1", agent.port), 10, (source, 0))


def secured(agent: Agent, source: str = "127.0.0.1") -> ssl.SSLSocket:
    """Open a connection and complete its TLS handshake."""
    context = ssl.create_default_context(cafile=agent.state / "agent.crt")
    context.check_hostname = False
    return context.wrap_socket(raw(agent, source))


def ends(connection: socket.socket, within: float = SOON) -> float:
    """Return the seconds until the agent closes the connection."""
    started = time.monotonic()
    connection.settimeout(within)
    try:
        while connection.recv(4096):
            pass
    except (ConnectionError, ssl.SSLError):
        pass
    return time.monotonic() - started


def metric(agent: Agent, name: str) -> float:
    """Return the value of one metric."""
    found = [line for line in agent.get("/metrics").decode().splitlines() if line.startswith(name)]
    assert len(found) == 1, found
    return float(found[0].rpartition(" ")[2])


def test_silent_connection_is_closed(limited: Agent) -> None:
    """A silent connection is closed in time, before and after TLS."""
    with raw(limited) as plain, secured(limited) as secure:
        assert 0.5 < ends(plain) < SOON
        assert ends(secure) < SOON
    assert metric(limited, 'plexodus_agent_connections_sent_away_total{reason="slow"}') >= 1


def test_endless_head_is_cut_off(limited: Agent) -> None:
    """A slow request head is closed at its deadline, though bytes arrive."""
    with secured(limited) as slow:
        started = time.monotonic()
        with pytest.raises((ConnectionError, ssl.SSLError)):  # noqa: PT012 - any of the writes
            for letter in b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: " + b"x" * 50:
                slow.sendall(bytes([letter]))
                time.sleep(0.1)
        assert time.monotonic() - started < SOON


def test_pause_of_the_vm_is_not_the_clients(limited: Agent) -> None:
    """A request that was under way while the agent's machine was paused is answered after it."""
    with secured(limited) as early:
        early.sendall(b"GET /healthz HTTP/1.1\r\n")
        os.kill(limited.pid, signal.SIGSTOP)
        time.sleep(SOON)
        os.kill(limited.pid, signal.SIGCONT)
        time.sleep(0.6)  # one search for late connections
        early.sendall(b"Host: x\r\n\r\n")
        assert early.recv(12) == b"HTTP/1.1 200"


def test_endless_second_head_is_cut_off(limited: Agent) -> None:
    """A slow second head is closed at its deadline too."""
    with secured(limited) as slow:
        slow.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert slow.recv(12) == b"HTTP/1.1 200"
        slow.sendall(b"GET /healthz HTTP/1.1\r\nX: ")
        assert ends(slow) < SOON


def test_endless_body_is_cut_off(limited: Agent) -> None:
    """A slow body gets 408, even with the token."""
    with secured(limited) as slow:
        head = f"POST /v1/snapshots HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {limited.token}"
        slow.sendall(f"{head}\r\nContent-Length: 50\r\n\r\n{{".encode())
        slow.settimeout(SOON)
        assert slow.recv(12) == b"HTTP/1.1 408"


def test_client_with_the_token_may_rest(limited: Agent) -> None:
    """A client with the token may idle longer than a stranger, but not forever."""
    with secured(limited) as known, secured(limited) as stranger:
        request = "GET /healthz HTTP/1.1\r\nHost: x\r\n"
        stranger.sendall(f"{request}\r\n".encode())
        request = request.replace("healthz", "openapi.json")
        known.sendall(f"{request}Authorization: Bearer {limited.token}\r\n\r\n".encode())
        assert known.recv(12) == stranger.recv(12) == b"HTTP/1.1 200"
        assert ends(stranger) < SOON
        assert ends(known, within=10) > 1.0


def test_client_that_reads_nothing_is_disconnected(
    tmp_path: Path, new_agent: Callable[[Path], Agent]
) -> None:
    """A client with the token that stops reading an archive is disconnected."""
    library = tmp_path / "Library"
    library.mkdir()
    (library / "large").write_bytes(bytes(60_000_000))
    (tmp_path / "agent.toml").write_text(LIMITS)
    agent = new_agent(library)
    agent.pair()
    agent.start("--config", tmp_path / "agent.toml")
    snapshot = agent.scan()
    with secured(agent) as hung:
        path = f"/v1/snapshots/{snapshot.id}/archive.tar"
        head = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {agent.token}"
        hung.sendall(f"{head}\r\n\r\n".encode())
        deadline = time.monotonic() + 20
        while metric(agent, "plexodus_agent_connections ") > 1:
            assert time.monotonic() < deadline
            time.sleep(0.2)


def test_crowd_of_strangers_makes_room_for_the_puller(
    limited: Agent, puller: Puller, library: Path, target: Path
) -> None:
    """A pull succeeds while strangers hold connections from the same address."""
    puller.pairing = limited.pairing
    with ExitStack() as crowd:
        for _ in range(30):
            crowd.enter_context(raw(limited))
        finished = puller.pull()
    assert finished.code == 0, finished.text
    assert rsync_differences(library, target / "Library") == []


def test_one_address_cannot_take_all_connections(limited: Agent) -> None:
    """One address keeps eight connections, and other addresses lose none."""
    with ExitStack() as crowd:
        other = crowd.enter_context(secured(limited, "127.0.0.2"))
        strangers = [crowd.enter_context(raw(limited)) for _ in range(9)]
        assert ends(strangers[0], within=0.9) < 0.9
        other.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert other.recv(12) == b"HTTP/1.1 200"


def test_clients_with_the_token_are_not_sent_away(limited: Agent) -> None:
    """The ninth connection of an address is refused, and the first eight stay."""
    with ExitStack() as crowd:
        known = [crowd.enter_context(closing(limited.connect())) for _ in range(8)]
        headers = {"Authorization": f"Bearer {limited.token}"}
        for each in known:
            each.request("GET", "/openapi.json", headers=headers)
            assert len(each.getresponse().read()) > 1000
        with raw(limited) as ninth:
            assert ends(ninth, within=0.9) < 0.9
        for each in known:
            each.request("GET", "/openapi.json", headers=headers)
            assert len(each.getresponse().read()) > 1000


def test_wrong_tokens_are_slowed(limited: Agent) -> None:
    """After three wrong tokens each response is delayed, and the right one never is."""
    times = []
    with closing(limited.connect()) as http:
        for _ in range(6):
            started = time.monotonic()
            http.request("GET", "/openapi.json", headers={"Authorization": "Bearer wrong"})
            response = http.getresponse()
            response.read()
            assert response.status == 401
            times.append(time.monotonic() - started)
    assert max(times[:3]) < times[3] < times[4] < times[5]
    assert times[5] >= 1.0
    started = time.monotonic()
    limited.get("/openapi.json")
    assert time.monotonic() - started < times[5]
    assert metric(limited, "plexodus_agent_wrong_tokens_total") == 6


def test_wrong_tokens_are_forgiven_and_forgotten() -> None:
    """The delay ends after five quiet minutes, and a million clients need no memory."""
    wrong = WrongTokens()
    assert [wrong.delay("a", 0.0) for _ in range(10)][-1] == 8.0
    assert wrong.delay("b", 0.0) == 0.0
    assert wrong.delay("a", 299.0) == 8.0
    assert wrong.delay("a", 600.0) == 0.0
    for number in range(3000):
        wrong.delay(str(number), 601.0)
    assert len(wrong._clients) <= 1024
    assert wrong.seen == 3013


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_ipv6_network_counts_as_one_client(host: str, expected: str) -> None:
    """An IPv6 /64 counts as one client."""
    assert party(host) == expected
