"""The options for the pairing with an agent and for the puller's own certificate."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import click
import structlog

from initpuller.commands.options import option
from shared.errors import ConfigurationError
from shared.wire.pairing import PAIRING_VARIABLE, Pairing, parse_pairing

if TYPE_CHECKING:
    from initpuller.commands.options import Command

_log = structlog.get_logger("puller")


_FILE = option(
    "--pairing-file",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="File with the output of 'plexodus-agent pair'. Default: the string in PLEXODUS_PAIRING.",
)
_CERTIFICATE = option(
    "--client-certificate",
    metavar="FILE",
    default="",
    type=click.Path(dir_okay=False),
    help="The puller's certificate (PEM), for an agent with client_ca. Default: none.",
)
_KEY = option(
    "--client-key",
    metavar="FILE",
    default="",
    type=click.Path(dir_okay=False),
    help="Private key (PEM) of --client-certificate. Default: the key in the same file.",
)


def paired(command: Command) -> Command:
    """Add ``pairing_file``, ``client_certificate`` and ``client_key`` to ``command``."""
    return _FILE(_CERTIFICATE(_KEY(command)))


def chosen_pairing(path: str | None, certificate: str, key: str) -> Pairing:
    """Return the pairing in the file ``path`` or the environment, with the puller's certificate.

    Raise ConfigurationError if the pairing is missing, given twice, or invalid.
    """
    return replace(parse_pairing(_pairing_text(path)), certificate=certificate, key=key)


def pairing_if_usable(path: str | None, certificate: str, key: str) -> Pairing | None:
    """Return the pairing, or None without one; log a warning if the given one is invalid."""
    if path is None and PAIRING_VARIABLE not in os.environ:
        return None
    try:
        return chosen_pairing(path, certificate, key)
    except ConfigurationError as error:
        _log.warning("cannot report to the agent", reason=str(error))
        return None


def _pairing_text(path: str | None) -> str:
    text = os.environ.get(PAIRING_VARIABLE)
    if path is None:
        if text is None:
            raise ConfigurationError(
                "no pairing", hint=f"Set --pairing-file, or put the string into {PAIRING_VARIABLE}."
            )
        return text
    if text is not None:
        raise ConfigurationError(
            f"both --pairing-file and {PAIRING_VARIABLE} are set", hint="Remove one of them."
        )
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeError) as error:
        raise ConfigurationError(f"the pairing file cannot be read ({error})") from error
