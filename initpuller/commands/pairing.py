"""The options that say which agent, and who we are; the string itself may be in the environment."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import click
import structlog

from shared.errors import ConfigurationError
from shared.wire.pairing import PAIRING_VARIABLE, Pairing, parse_pairing

if TYPE_CHECKING:
    from collections.abc import Callable


_log = structlog.get_logger("puller")


def paired(command: Callable[..., None]) -> Callable[..., None]:
    """Give ``command`` the options ``pairing_file``, ``client_certificate``, ``client_key``."""
    options = (
        click.option(
            "--pairing-file",
            envvar="PLEXODUS_PAIRING_FILE",
            metavar="FILE",
            type=click.Path(dir_okay=False),
            help="File with the string that 'plexodus-agent pair' printed.",
        ),
        click.option(
            "--client-certificate",
            envvar="PLEXODUS_CLIENT_CERTIFICATE",
            metavar="FILE",
            default="",
            type=click.Path(dir_okay=False),
            help="Our own certificate (PEM), for an agent that lets in only those of its CA.",
        ),
        click.option(
            "--client-key",
            envvar="PLEXODUS_CLIENT_KEY",
            metavar="FILE",
            default="",
            type=click.Path(dir_okay=False),
            help="Its key (PEM), unless it is in the same file.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def chosen_pairing(path: str | None, certificate: str, key: str) -> Pairing:
    """The pairing in the file ``path`` or in the environment, with our own certificate.

    Raises:
        ConfigurationError: there is none, there are two, or it cannot be used.
    """
    return replace(parse_pairing(_pairing_text(path)), certificate=certificate, key=key)


def pairing_if_usable(path: str | None, certificate: str, key: str) -> Pairing | None:
    """The same; None if there is none that can be used, and a warning if one was meant to be."""
    if path is None and PAIRING_VARIABLE not in os.environ:
        return None
    try:
        return chosen_pairing(path, certificate, key)
    except ConfigurationError as error:
        _log.warning("the VM is not told", reason=str(error))
        return None


def _pairing_text(path: str | None) -> str:
    text = os.environ.get(PAIRING_VARIABLE)
    if path is None:
        if text is None:
            raise ConfigurationError(
                "no pairing", hint=f"Give --pairing-file, or the string in {PAIRING_VARIABLE}."
            )
        return text
    if text is not None:
        raise ConfigurationError(f"both --pairing-file and {PAIRING_VARIABLE} are given")
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeError) as error:
        raise ConfigurationError(f"the pairing file cannot be read ({error})") from error
