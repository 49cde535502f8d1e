"""Failed connections are named in Events and in the pod's status, for an administrator."""

from __future__ import annotations

import asyncio
import http.client
import re
import socket
import ssl
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import aiohttp
import pytest
import urllib3
from kubernetes.client import ApiException

from shared.wire.network_errors import failure_reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_ADDRESS_IN_MEMORY = re.compile(r"0x[0-9a-f]{4,}|<")
_SECONDS = 0.5


async def _fetch(url: str) -> None:
    limit = aiohttp.ClientTimeout(total=_SECONDS)
    context = ssl.create_default_context()
    async with (
        aiohttp.ClientSession(timeout=limit) as session,
        session.get(url, ssl=context) as answer,
    ):
        await answer.read()


def _aiohttp(host: str, port: int) -> None:
    asyncio.run(_fetch(f"https://{host}:{port}/"))


def _urllib3(host: str, port: int) -> None:
    with urllib3.PoolManager(timeout=_SECONDS, retries=1) as pool:
        pool.request("GET", f"https://{host}:{port}/")


def _standard(host: str, port: int) -> None:
    connection = http.client.HTTPSConnection(host, port, timeout=_SECONDS)
    try:
        connection.request("GET", "/")
        connection.getresponse()
    finally:
        connection.close()


@contextmanager
def _listening(answer: bytes | None) -> Iterator[int]:
    """Serve connections with ``answer``; with None, accept and say nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held = []

        def serve() -> None:
            while True:
                try:
                    accepted, _ = server.accept()
                except OSError:
                    return
                accepted.settimeout(_SECONDS)
                held.append(accepted)
                if answer is not None:
                    with suppress(OSError):
                        accepted.recv(1024)
                        accepted.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
        for each in held:
            each.close()


def _reason(ask: Callable[[str, int], None], host: str, port: int) -> str:
    try:
        ask(host, port)
    except Exception as error:  # noqa: BLE001 - whatever the library raises
        reason = failure_reason(error)
        assert not _ADDRESS_IN_MEMORY.search(reason), reason
        return reason
    raise AssertionError("nothing failed")


@pytest.mark.parametrize("ask", [_aiohttp, _urllib3, _standard])
def test_reason_is_that_of_the_system(ask: Callable[[str, int], None]) -> None:
    """A closed port, a server without TLS and a silent one are named, for each library."""
    with _listening(None) as port:
        pass
    assert _reason(ask, "127.0.0.1", port) == "Connection refused"
    with _listening(b"HTTP/1.0 400 This is not TLS\r\n\r\n") as port:
        assert _reason(ask, "127.0.0.1", port).startswith("TLS: ")
    with _listening(None) as port:
        assert re.search("time", _reason(ask, "127.0.0.1", port))


@pytest.mark.parametrize("ask", [_aiohttp, _urllib3, _standard])
def test_reason_is_that_of_the_resolver(
    ask: Callable[[str, int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that does not exist is called that; a name server may take minutes to say so."""

    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert _reason(ask, "vm.example.org", 8443) == "Name or service not known"


def test_unknown_error_is_named_without_its_objects() -> None:
    """A message never has an address in memory, and is never empty."""
    assert failure_reason(RuntimeError("<a.B object at 0x7f00aa>: it broke")) == "it broke"
    assert failure_reason(RuntimeError()) == "RuntimeError"
    assert failure_reason(TimeoutError()) == "no answer in time"
    assert failure_reason(OSError("a", "b")) == "[Errno a] b"
    assert failure_reason(OSError(2**40, "beyond errno")) == f"[Errno {2**40}] beyond errno"
    assert failure_reason(FileNotFoundError(2, "x", "/run/token")).endswith("directory: /run/token")


def test_reason_of_tls_is_not_a_file_that_is_missing() -> None:
    """OpenSSL's numbers are no errno(3): 2 is not a missing file, and 6 not a missing device."""
    for error in (ssl.SSLWantReadError(2, "read again"), ssl.SSLZeroReturnError(6, "closed")):
        assert re.fullmatch(r"TLS: .*(read again|closed).*", failure_reason(error))


def test_reason_of_a_certificate() -> None:
    """The message says that it has expired, through the client of Kubernetes, too."""
    found = ssl.SSLCertVerificationError(1, "[SSL] certificate verify failed (_ssl.c:1006)")
    found.reason = "CERTIFICATE_VERIFY_FAILED"
    found.verify_message = "certificate has expired"
    told = "TLS: certificate verify failed, certificate has expired"
    assert failure_reason(found) == told

    def refused() -> None:
        try:
            raise urllib3.exceptions.SSLError(found)  # noqa: TRY301 - as that client does
        except urllib3.exceptions.SSLError:
            raise ApiException(status=0, reason="SSLError")  # noqa: B904 - as that client does

    with pytest.raises(ApiException) as raised:
        refused()
    assert failure_reason(raised.value) == told


def test_reason_at_a_proxy() -> None:
    """Otherwise, an administrator would look for a server that nobody asked."""
    inside = urllib3.exceptions.ProxyError("Cannot connect", ConnectionRefusedError(111, "x"))
    assert failure_reason(inside) == "the proxy: Connection refused"
