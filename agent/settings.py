"""The agent's settings: defaults, the file ``/etc/plexodus/agent.toml`` and the command line."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from shared import typed_json
from shared.errors import ConfigurationError, unusable_file
from shared.wire.pairing import parse_address

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_FILE = "/etc/plexodus/agent.toml"
_RATE = re.compile(r"(\d+(?:\.\d+)?) ?([kKMG]i?)?(B|bit)/s")
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3}

Seconds = Annotated[float, msgspec.Meta(gt=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Limits on unauthenticated clients, and on clients that stop responding."""

    connections: Count = 256
    """Most connections in total."""
    connections_per_address: Count = 64
    """Most connections from one IPv4 address, or from one /64 of IPv6."""
    header_seconds: Seconds = 10.0
    """Time for a TLS handshake, and for all headers of a request."""
    body_seconds: Seconds = 10.0
    """Time for the whole body of a request. No valid body exceeds a few KiB."""
    idle_seconds: Seconds = 300.0
    """Time between requests of an authenticated client, or without progress of a response."""


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All settings, each under the name that it has in the file."""

    library: str = ""
    """Path of the library; empty to find it with :mod:`agent.plex.folder`."""
    unit: str = "plexmediaserver.service"
    listen: str = "0.0.0.0:8443"
    address: str = ""
    """Address in the pairing string; empty for this machine's own, with the port of ``listen``."""
    state: str = "/var/lib/plexodus"
    rate: str = ""
    """Limit such as ``50MiB/s`` or ``400Mbit/s``; empty for no limit."""
    certificate: str = ""
    key: str = ""
    client_ca: str = ""
    stop_command: list[str] = []
    """Command that stops a Plex without a unit. It replaces :attr:`unit`, like
    :attr:`start_command`."""
    start_command: list[str] = []
    container: str = ""
    """Name of the container with Plex, instead of :attr:`unit`."""
    engine_socket: str = "/run/docker.sock"
    """Socket of the container's engine."""
    stop_seconds: Seconds = 120.0
    """Time that Plex may take to stop."""
    lease_seconds: Seconds = 60.0
    """Time that Plex stays stopped without a request from the puller."""
    limits: Limits = Limits()

    @property
    def listen_address(self) -> tuple[str, int]:
        """Host and port of :attr:`listen`."""
        return parse_address(self.listen)

    @property
    def bytes_per_second(self) -> float | None:
        """Value of :attr:`rate` in bytes a second; None if there is no limit."""
        return parse_rate(self.rate) if self.rate else None


def load_settings(path: str | None, given: Mapping[str, str | None]) -> Settings:
    """Return the settings in the file, overridden by those ``given`` that are not None.

    The path None stands for the default file, which may be missing.

    Raises:
        ConfigurationError: If the file cannot be read, or a setting is invalid.
        StorageError: If the file cannot be read now, for a reason that may pass.
    """
    file = path or DEFAULT_FILE
    values = _read(file, may_be_missing=path is None)
    values |= {name: value for name, value in given.items() if value is not None}
    try:
        settings = typed_json.convert(values, Settings)
        _ = settings.listen_address, settings.bytes_per_second
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"a setting is invalid ({error})", path=file) from error
    if bool(settings.certificate) != bool(settings.key):
        raise ConfigurationError("set both certificate and key, or neither", path=file)
    if bool(settings.stop_command) != bool(settings.start_command):
        both = "set both stop_command and start_command, or neither"
        raise ConfigurationError(both, path=file)
    if settings.stop_command and settings.container:
        raise ConfigurationError("set either container or stop_command, not both", path=file)
    return settings


def parse_rate(text: str) -> float:
    """Return the bytes per second of ``50MiB/s``, ``50 MB/s`` or ``400Mbit/s``.

    Raises:
        ConfigurationError: If ``text`` has another form, or the rate is below 1 kB/s.
    """
    found = _RATE.fullmatch(text)
    if found is None:
        raise ConfigurationError(
            f"the rate {text!r} is invalid", hint="Use a rate such as 50MiB/s or 400Mbit/s."
        )
    number, prefix, unit = found.groups()
    prefix = prefix or ""
    base = 1024 if prefix.endswith("i") else 1000
    rate: float = float(number) * base ** _POWERS[prefix.removesuffix("i").lower()]
    rate = rate / 8 if unit == "bit" else rate
    if rate < 1000:  # noqa: PLR2004 - a library would take years
        raise ConfigurationError(f"the rate {text!r} is below 1 kB/s")
    return rate


def _read(path: str, *, may_be_missing: bool) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except FileNotFoundError as error:
        if may_be_missing:
            return {}
        raise ConfigurationError("the settings file does not exist", path=path) from error
    except OSError as error:
        raise unusable_file(error, "the settings file cannot be read", path) from error
    except (tomllib.TOMLDecodeError, UnicodeError) as error:
        raise ConfigurationError(
            f"the settings file is not valid TOML ({error})", path=path
        ) from error
