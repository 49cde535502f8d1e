"""The open port, as a site of aiohttp's runner: each connection is counted before it is served."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from shared.errors import ConfigurationError
from shared.wire.pairing import address

if TYPE_CHECKING:
    from agent.server.connections import Connections

_BACKLOG = 128


class Listener(web.BaseSite):
    """Listens for :class:`Connections`.

    Args:
        runner: the application's runner, set up.
        host: the address to listen at.
        port: the port to listen at; 0 for any.
        connections: admits connections, or closes them.
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
            ConfigurationError: the port is in use, or the address is not this machine's.
        """
        await super().start()
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(
                self._connections, self._host, self._port, backlog=self._backlog
            )
        except OSError as error:
            raise ConfigurationError(
                f"cannot listen ({error.strerror})", path=address(self._host, self._port)
            ) from error
        self._sweeping = asyncio.create_task(self._connections.sweep())

    async def stop(self) -> None:
        """Close the port; open connections stay."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        await super().stop()
