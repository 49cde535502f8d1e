"""An agent that is only a TLS socket: it sends any bytes at any pace."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agent.server.credentials import make_pairing
from agent.server.tls import server_tls
from agent.settings import Settings
from rig.waiting import wait_until

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from shared.wire.pairing import Pairing


@dataclass
class RawAgent:
    """A listening agent."""

    pairing: Pairing
    sent: int = 0
    """Bytes of responses that the kernel accepted."""
    open: int = 0
    """Number of open connections."""

    def send(self, connection: ssl.SSLSocket, data: bytes) -> None:
        """Send ``data``, and count it."""
        connection.sendall(data)
        self.sent += len(data)

    def wait_until_left(self) -> None:
        """Wait until no client is connected."""
        wait_until(lambda: not self.open)


@contextmanager
def raw_agent(state: Path, answer: Callable[[RawAgent, ssl.SSLSocket], None]) -> Iterator[RawAgent]:
    """Listen, and call ``answer`` for each request until the client hangs up.

    Args:
        state: folder for its certificate.
        answer: sends a response. It ends with an OSError when the client hangs up.
    """
    pairing = make_pairing(str(state), "127.0.0.1", 1)
    tls = server_tls(Settings(state=str(state)))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        agent = RawAgent(replace(pairing, port=listener.getsockname()[1]))

        def serve(plain: socket.socket) -> None:
            with suppress(OSError), tls.wrap_socket(plain, server_side=True) as connection:
                connection.settimeout(20)
                while connection.recv(65536):
                    answer(agent, connection)
            agent.open -= 1

        def accept() -> None:
            with suppress(OSError):  # the listener is closed
                while True:
                    plain = listener.accept()[0]
                    agent.open += 1
                    threading.Thread(target=serve, args=(plain,)).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield agent
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()
