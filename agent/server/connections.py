"""Every connection to the agent: how many there may be, how long one may say nothing, who goes.

Counted from the first packet on, before TLS has cost anything. Who has shown the token is never
sent away for strangers: when there are too many, the stranger who came first goes.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from typing import TYPE_CHECKING, cast

import structlog

from shared.program.logs import LogLimit

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import web

    from agent.settings import Limits

_log = structlog.get_logger("agent")
_SWEEP = 0.5
"""Seconds between two looks for connections whose time is over."""
_TELL_AGAIN = 1.0
_NETWORK = 64
"""Bits of an IPv6 address that one customer has all below of."""


def party(host: str) -> str:
    """Return the party of an address, for limits: the address itself, or its IPv6 /64."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if address.version == 6:  # noqa: PLR2004 - IPv6
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, _NETWORK), strict=False))
    return str(address)


class Connections:
    """All that are open.

    Args:
        limits: may be replaced while connections are open.
        tls: for those to come; may be replaced, too.
        serve: makes what speaks HTTP on a connection.
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
        """How many, and why: too many of them, too slow, or no TLS that we speak."""
        self.strangers_lines = LogLimit()
        """Of the log, about requests without the token: nobody else's are left out."""
        self._told = -_TELL_AGAIN

    def __call__(self) -> Connection:
        """A connection to come: what ``create_server`` takes."""
        return Connection(self)

    def admit(self, new: Connection) -> bool:
        """Whether ``new`` may stay; a stranger may have to go for it."""
        neighbours = [each for each in self.open if each.party == new.party]
        if len(neighbours) >= self.limits.connections_per_address:
            is_room = self._drop_stranger(neighbours)
        elif len(self.open) >= self.limits.connections:
            is_room = self._drop_stranger(list(self.open))
        else:
            is_room = True
        if is_room:
            self.open[new] = None
        else:
            self.sent_away["crowd"] += 1
        return is_room

    def handshake_failed(self, who: str, error: OSError) -> None:
        """Count it; the log gets one a second of what a client's owner may wonder about."""
        self.sent_away["handshake"] += 1
        now = asyncio.get_running_loop().time()
        if isinstance(error, ssl.SSLError) and now - self._told > _TELL_AGAIN:
            self._told = now
            _log.warning("handshake failed", peer=who, reason=error.reason or str(error))

    async def sweep(self) -> None:
        """Close what has been silent for too long; never returns."""
        while True:
            await asyncio.sleep(_SWEEP)
            now = asyncio.get_running_loop().time()
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
    """One connection: TLS first, then HTTP, with a look at the clock.

    Args:
        all_of_them: where it counts.
    """

    def __init__(self, all_of_them: Connections) -> None:
        self._all = all_of_them
        self._raw: asyncio.Transport | None = None
        self._http: asyncio.Protocol | None = None
        self._early: list[bytes] = []
        """What came between the handshake and our being told of its end."""
        self._securing: asyncio.Task[None] | None = None
        self._requests = 0
        """Under way."""
        self._since = asyncio.get_running_loop().time()
        """When what we wait for began: the handshake, the head of a request, or idleness."""
        self._is_idle = False
        self.is_trusted = False
        self.party = ""

    @property
    def limits(self) -> Limits:
        """Those that hold now."""
        return self._all.limits

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A stranger is here: count it, and begin with TLS."""
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
        """A part of a request."""
        if self._is_idle and self._requests == 0:
            self._is_idle = False
            self._since = asyncio.get_running_loop().time()
        if self._http is None:
            self._early.append(data)
        else:
            self._deliver(self._http, data)

    def eof_received(self) -> None:
        """The client says no more; TLS closes the connection."""
        if self._http is not None:
            self._http.eof_received()

    def pause_writing(self) -> None:
        """The client does not take it as fast as it comes."""
        if self._http is not None:
            self._http.pause_writing()

    def resume_writing(self) -> None:
        """Now it does."""
        if self._http is not None:
            self._http.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._all.open.pop(self, None)
        if self._http is not None:
            self._http.connection_lost(exc)

    def abort(self) -> None:
        """End it at once: not even TLS says good-bye, which a client that hangs would not hear."""
        self._all.open.pop(self, None)
        if self._securing is not None:
            self._securing.cancel()
        if self._raw is not None:
            self._raw.abort()

    def trust(self) -> None:
        """It has shown the token."""
        self.is_trusted = True

    def lines_left_out(self) -> int | None:
        """Return how many log lines were left out before the next one, or None to leave it out.

        Strangers share one limit, so that they cannot fill the journal. Lines of whoever has shown
        the token are never left out.
        """
        if self.is_trusted:
            return 0
        return self._all.strangers_lines.admit(asyncio.get_running_loop().time())

    def begin(self) -> None:
        """The head of a request is here whole."""
        self._requests += 1

    def end(self) -> None:
        """A request is answered."""
        self._requests -= 1
        self._is_idle = True
        self._since = asyncio.get_running_loop().time()

    def is_late(self, now: float) -> bool:
        """Whether it has been silent for longer than it may; an answer may take its time."""
        if self._requests > 0:
            return False
        limits = self.limits
        may_rest = self._is_idle and self.is_trusted
        return now - self._since > (limits.idle_seconds if may_rest else limits.header_seconds)

    async def _secure(self, raw: asyncio.Transport) -> None:
        loop = asyncio.get_running_loop()
        try:
            transport = await loop.start_tls(
                raw,
                self,
                self._all.tls,
                server_side=True,
                ssl_handshake_timeout=self.limits.header_seconds,
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
        """Hand ``data`` to what speaks HTTP. What its parser cannot cope with ends the connection.

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
    """The connection that a request came on; None once it is gone."""
    transport = request.transport
    found = None if transport is None else transport.get_protocol()
    return found if isinstance(found, Connection) else None
