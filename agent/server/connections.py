"""Every connection to the agent: how many there may be, and how long one may be silent.

Connections count from their first packet on, before TLS has cost anything. A client that has shown
the token never loses its connection to strangers: the stranger who came first does.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from typing import TYPE_CHECKING, cast

import structlog
from aiohttp import web

from shared.errors import ConfigurationError, PreflightRefused, is_lasting
from shared.program.logs import LogLimit
from shared.wire.pairing import address

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.settings import Limits

_log = structlog.get_logger("agent")
_BACKLOG = 128
_SWEEP = 0.5
"""Seconds between two searches for connections whose time is over."""
_LOG_AGAIN = 1.0
"""Seconds between two log lines about handshakes."""
_NETWORK = 64
"""Bits of an IPv6 address that all addresses of one customer have in common."""


def party(host: str) -> str:
    """Return the party of an address, for limits: the address itself, or its IPv6 /64."""
    try:
        found = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    if isinstance(found, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((found, _NETWORK), strict=False))
    return str(found)


class Connections:
    """All open connections.

    Args:
        limits: may be replaced while connections are open.
        tls: for connections to come; may be replaced, too.
        serve: returns a new protocol that speaks HTTP on a connection.
    """

    def __init__(
        self, limits: Limits, tls: ssl.SSLContext, serve: Callable[[], asyncio.Protocol]
    ) -> None:
        self.limits = limits
        self.tls = tls
        self.serve = serve
        self.open: dict[Connection, None] = {}
        """In the order of their arrival."""
        self.sent_away: dict[str, int] = dict.fromkeys(("crowd", "slow", "handshake"), 0)
        """Closed connections by reason: too many of them, too slow, or no TLS that we speak."""
        self.strangers_lines = LogLimit()
        """Limit of the log lines about requests without the token."""
        self._logged = -_LOG_AGAIN

    def admit(self, new: Connection) -> bool:
        """Return whether ``new`` may stay; a stranger may have to make room for it."""
        neighbors = [each for each in self.open if each.party == new.party]
        if len(neighbors) >= self.limits.connections_per_address:
            is_room = self._drop_stranger(neighbors)
        elif len(self.open) >= self.limits.connections:
            is_room = self._drop_stranger(list(self.open))
        else:
            is_room = True
        if is_room:
            self.open[new] = None
        else:
            self.sent_away["crowd"] += 1
        return is_room

    def handshake_failed(self, peer: str, error: OSError) -> None:
        """Count a failed handshake, and log at most one a second that a client may ask about."""
        self.sent_away["handshake"] += 1
        now = asyncio.get_running_loop().time()
        if isinstance(error, ssl.SSLError) and now - self._logged > _LOG_AGAIN:
            self._logged = now
            _log.warning("handshake failed", peer=peer, reason=error.reason or str(error))

    async def sweep(self) -> None:
        """Close connections that are silent for too long; never return.

        Time in which this process did not run, such as that of a paused VM, is not the client's.
        """
        before = asyncio.get_running_loop().time()
        while True:
            await asyncio.sleep(_SWEEP)
            now = asyncio.get_running_loop().time()
            paused, before = now - before - _SWEEP, now
            for connection in self.open:
                connection.allow(paused, now)
            for connection in [each for each in self.open if each.is_late(now)]:
                self.sent_away["slow"] += 1
                connection.abort()

    def _drop_stranger(self, among: list[Connection]) -> bool:
        for connection in among:
            if not connection.is_trusted:
                self.sent_away["crowd"] += 1
                connection.abort()
                return True
        return False


class Connection(asyncio.Protocol):
    """One of ``connections``: TLS first, then HTTP, each within its time."""

    def __init__(self, connections: Connections) -> None:
        self._all = connections
        self._raw: asyncio.Transport | None = None
        self._http: asyncio.Protocol | None = None
        self._early: list[bytes] = []
        """What arrived between the handshake and the end of the task that made it."""
        self._securing: asyncio.Task[None] | None = None
        self._requests = 0
        """Number of requests that are being answered."""
        self._since = asyncio.get_running_loop().time()
        """When the wait for a handshake, for the head of a request, or idleness began."""
        self._is_idle = False
        self.is_trusted = False
        """The client has shown the token."""
        self.party = ""

    @property
    def limits(self) -> Limits:
        """The limits at this moment."""
        return self._all.limits

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection, and begin with TLS."""
        self._raw = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self.party = party(peer[0]) if peer else ""
        if not self._all.admit(self):
            self._raw.abort()
            return
        idle = int(self.limits.idle_seconds * 1000)
        sock: socket.socket = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, idle)
        self._raw.pause_reading()  # until TLS reads
        self._securing = asyncio.create_task(self._secure(self._raw))

    def data_received(self, data: bytes) -> None:
        """Hand on a part of a request."""
        if self._is_idle and self._requests == 0:
            self._is_idle = False
            self._since = asyncio.get_running_loop().time()
        if self._http is None:
            self._early.append(data)
        else:
            self._deliver(self._http, data)

    def eof_received(self) -> None:
        """Report that the client has closed its side; TLS closes the connection."""
        if self._http is not None:
            self._http.eof_received()

    def pause_writing(self) -> None:
        """Report that the client receives more slowly than we send."""
        if self._http is not None:
            self._http.pause_writing()

    def resume_writing(self) -> None:
        """Report that the client has caught up."""
        if self._http is not None:
            self._http.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._all.open.pop(self, None)
        if self._http is not None:
            self._http.connection_lost(exc)

    def abort(self) -> None:
        """Close the connection at once, without TLS's goodbye, for which a stalled client waits."""
        self._all.open.pop(self, None)
        if self._securing is not None:
            self._securing.cancel()
        if self._raw is not None:
            self._raw.abort()

    def lines_left_out(self) -> int | None:
        """Return how many log lines were left out before the next one, or None to leave it out.

        Strangers share one limit, so that they cannot fill the journal. Lines of a client that has
        shown the token are never left out.
        """
        if self.is_trusted:
            return 0
        return self._all.strangers_lines.admit(asyncio.get_running_loop().time())

    def begin(self) -> None:
        """Note that the head of a request has arrived."""
        self._requests += 1

    def end(self) -> None:
        """Note that a request is answered."""
        self._requests -= 1
        self._is_idle = True
        self._since = asyncio.get_running_loop().time()

    def allow(self, seconds: float, now: float) -> None:
        """Give the client this much more time, but not more than a new one has."""
        self._since = min(now, self._since + max(0.0, seconds))

    def is_late(self, now: float) -> bool:
        """Return whether the client is silent for too long; a response may take its time."""
        if self._requests > 0:
            return False
        limits = self.limits
        may_rest = self._is_idle and self.is_trusted
        return now - self._since > (limits.idle_seconds if may_rest else limits.header_seconds)

    async def _secure(self, raw: asyncio.Transport) -> None:
        timeout = self.limits.header_seconds
        try:
            transport = await asyncio.get_running_loop().start_tls(
                raw, self, self._all.tls, server_side=True, ssl_handshake_timeout=timeout
            )
        except OSError as error:  # those of TLS, of time and of the network
            self._all.handshake_failed(self.party, error)
            self.abort()
            return
        if transport is None or self not in self._all.open:
            return
        self._http = self._all.serve()
        self._http.connection_made(transport)
        for data in self._early:
            self._deliver(self._http, data)
        self._early.clear()

    def _deliver(self, http: asyncio.Protocol, data: bytes) -> None:
        """Hand ``data`` to the HTTP parser, and close the connection if the parser fails.

        The event loop would log the parser's exception, with what a stranger sent in it.
        """
        try:
            http.data_received(data)
        except Exception as error:  # noqa: BLE001 - of a parser that is not ours
            if (left_out := self.lines_left_out()) is not None:
                kind = type(error).__name__
                _log.warning("malformed request", peer=self.party, kind=kind, left_out=left_out)
            self.abort()


def connection_of(request: web.Request) -> Connection | None:
    """Return the connection of a request; None once it is gone."""
    transport = request.transport
    found = None if transport is None else transport.get_protocol()
    return found if isinstance(found, Connection) else None


class Listener(web.BaseSite):
    """The open port, as a site of aiohttp's runner, which has to be set up.

    Port 0 stands for any port.
    """

    def __init__(
        self, runner: web.AppRunner, host: str, port: int, connections: Connections
    ) -> None:
        super().__init__(runner, backlog=_BACKLOG)
        self._host, self._port = host, port
        self._connections = connections
        self._sweeping: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        """The address of the port, for messages."""
        return f"https://{address(self._host, self._port)}"

    async def start(self) -> None:
        """Open the port.

        Raises:
            ConfigurationError: If that is not possible until a person changes something.
            PreflightRefused: If it is not possible now. The address may come later than the agent
                when the VM boots, and an earlier process may still have the port.
        """
        await super().start()
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(
                lambda: Connection(self._connections), self._host, self._port, backlog=_BACKLOG
            )
        except OSError as error:
            kind = ConfigurationError if is_lasting(error) else PreflightRefused
            raise kind(
                f"cannot listen ({error.strerror or error})",
                path=address(self._host, self._port),
                hint="Set 'listen' to an address of this machine and a port that is free.",
            ) from error
        self._sweeping = asyncio.create_task(self._connections.sweep())

    async def stop(self) -> None:
        """Close the port; open connections stay."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        await super().stop()
