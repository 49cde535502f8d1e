"""The address of probes: a kubelet uses the pod's address, of either family."""

from __future__ import annotations

import errno
import socket
import urllib.request
from typing import TYPE_CHECKING

import pytest

from initpuller.report import probes
from initpuller.report.probes import Probes
from shared.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable


def listening(host: str, port: int = 0) -> Probes:
    """Listen as something that is ready."""
    return Probes((host, port), lambda: True, lambda: b"{}", lambda: b"")


def is_answered(host: str, port: int) -> bool:
    """Return whether a probe to that address succeeds."""
    try:
        with urllib.request.urlopen(f"http://{host}:{port}/healthz", timeout=5) as answer:
            return int(answer.status) == 200
    except OSError:
        return False


@pytest.mark.parametrize(
    ("host", "answered"),
    [
        ("::", {"127.0.0.1", "[::1]"}),
        ("0.0.0.0", {"127.0.0.1"}),  # noqa: S104 - a pod's probes
        ("127.0.0.1", {"127.0.0.1"}),
        ("::1", {"[::1]"}),
    ],
)
def test_wildcard_address_serves_both_families(host: str, answered: set[str]) -> None:
    """``::`` serves both families, and any other address its own."""
    with listening(host) as server:
        assert {each for each in ("127.0.0.1", "[::1]") if is_answered(each, server.port)} == (
            answered
        )


@pytest.mark.parametrize("number", [errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL])
def test_machine_without_ipv6(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Without IPv6, ``::`` serves every address that exists."""
    monkeypatch.setattr(probes, "_ServerOfBoth", _refusing(number))
    with listening("::") as server:
        assert is_answered("127.0.0.1", server.port)
    with pytest.raises(ConfigurationError):
        listening("::1")


def test_port_is_taken() -> None:
    """A taken port is reported in either family, and not read as missing IPv6."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for host in ("127.0.0.1", "::"):
            with pytest.raises(ConfigurationError, match="in use"):
                listening(host, port)


def _refusing(number: int) -> Callable[..., object]:
    def refuse(*_: object) -> object:
        raise OSError(number, "refused")

    return refuse
