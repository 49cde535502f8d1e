"""The agent's settings: their defaults, the file ``/etc/plexodus/agent.toml``, the command line."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from shared.errors import ConfigurationError
from shared.wire.pairing import parse_address

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_FILE = "/etc/plexodus/agent.toml"
_RATE = re.compile(r"(\d+(?:\.\d+)?) ?([kKMG]i?)?(B|bit)/s")
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3}

Seconds = Annotated[float, msgspec.Meta(gt=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Limits for strangers, and for clients that hang."""

    connections: Count = 256
    """In all."""
    connections_per_address: Count = 64
    """From one IPv4 address, or one /64 of IPv6."""
    header_seconds: Seconds = 10.0
    """For a TLS handshake, and for the whole head of a request."""
    body_seconds: Seconds = 10.0
    """For the whole body of a request; no body that we know is over a few KiB."""
    idle_seconds: Seconds = 300.0
    """Between requests of a client with the token, or without an acknowledged byte of an answer."""


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All settings, each under the name that it has in the file."""

    library: str = ""
    """Empty: found by :mod:`agent.plex.folder`."""
    unit: str = "plexmediaserver.service"
    listen: str = "0.0.0.0:8443"
    address: str = ""
    """What the puller is told; empty: this machine's own, with the port of ``listen``."""
    state: str = "/var/lib/plexodus"
    rate: str = ""
    """Such as ``50MiB/s`` or ``400Mbit/s``; empty: as fast as it goes."""
    certificate: str = ""
    key: str = ""
    client_ca: str = ""
    stop_command: list[str] = []
    """For a Plex that is no unit; with :attr:`start_command`, instead of :attr:`unit`."""
    start_command: list[str] = []
    stop_seconds: Seconds = 120.0
    """That Plex may take to stop."""
    lease_seconds: Seconds = 60.0
    """That Plex stays stopped for a puller that is silent."""
    limits: Limits = Limits()

    @property
    def listen_address(self) -> tuple[str, int]:
        """Host and port of :attr:`listen`."""
        return parse_address(self.listen)

    @property
    def bytes_per_second(self) -> float | None:
        """Return :attr:`rate` in bytes a second; None without a limit."""
        return parse_rate(self.rate) if self.rate else None


def load_settings(path: str | None, given: Mapping[str, str | None]) -> Settings:
    """The settings in the file, under those that were ``given`` on the command line.

    Args:
        path: the file; None for the usual one, which may be missing.
        given: by the settings' names; None where the file has the say.

    Raises:
        ConfigurationError: the file cannot be read, or a setting in it cannot be used.
    """
    file = path or DEFAULT_FILE
    values = _read(file, may_be_missing=path is None)
    values |= {name: value for name, value in given.items() if value is not None}
    try:
        settings = msgspec.convert(values, Settings)
        _ = settings.listen_address, settings.bytes_per_second
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"a setting that cannot be used ({error})", path=file) from error
    if bool(settings.certificate) != bool(settings.key):
        raise ConfigurationError("certificate and key go together: one is missing", path=file)
    if bool(settings.stop_command) != bool(settings.start_command):
        both = "stop_command and start_command go together: one is missing"
        raise ConfigurationError(both, path=file)
    return settings


def parse_rate(text: str) -> float:
    """Bytes per second in ``50MiB/s``, ``50 MB/s`` or ``400Mbit/s``.

    Raises:
        ConfigurationError: it is not that, or no rate at which anything moves.
    """
    found = _RATE.fullmatch(text)
    if found is None:
        raise ConfigurationError(f"not a rate such as 50MiB/s or 400Mbit/s: {text!r}")
    number, prefix, unit = found.groups()
    prefix = prefix or ""
    base = 1024 if prefix.endswith("i") else 1000
    rate: float = float(number) * base ** _POWERS[prefix.removesuffix("i").lower()]
    rate = rate / 8 if unit == "bit" else rate
    if rate < 1000:  # noqa: PLR2004 - a library would take years
        raise ConfigurationError(f"a rate below 1 kB/s: {text!r}")
    return rate


def _read(path: str, *, may_be_missing: bool) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except FileNotFoundError as error:
        if may_be_missing:
            return {}
        raise ConfigurationError("the settings are not there", path=path) from error
    except OSError as error:
        raise ConfigurationError(
            f"the settings cannot be read ({error.strerror})", path=path
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeError) as error:
        raise ConfigurationError(f"the settings are no TOML ({error})", path=path) from error
