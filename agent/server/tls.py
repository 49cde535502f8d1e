"""The agent's TLS: with its own certificate, or with one from a CA.

The pairing pins the agent's own certificate; one from a CA is verified as usual.
"""

from __future__ import annotations

import ssl
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cryptography import x509

from agent.server.credentials import certificate_path, key_path, token_hash_path
from shared.errors import ConfigurationError, PreflightRefused, unusable_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.settings import Settings

_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2: forward secrecy and authenticated encryption only (RFC 9325 section 4.2)."""
_BAD_CERTIFICATE = "certificate and key cannot be used"
_BAD_CA = "the CA of the clients cannot be used"


def server_tls(settings: Settings) -> ssl.SSLContext:
    """Return the context for TLS 1.2 or newer; with ``client_ca``, clients need its certificate.

    Raises:
        ConfigurationError: the agent was never paired, or its files cannot be used.
        PreflightRefused: the clock of this machine is wrong.
        StorageError: its files cannot be read now, for a reason that may pass.
    """
    state = settings.state
    certificate = settings.certificate or certificate_path(state)
    key, token = settings.key or key_path(state), token_hash_path(state)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    with _use(token, "the agent is not paired", "Run 'plexodus-agent pair' first."):
        open(token, "rb").close()
    for path in (certificate, key):
        _read(path, _BAD_CERTIFICATE)
    with _use(certificate, _BAD_CERTIFICATE):
        # Without a function for the password, OpenSSL asks for one on the terminal.
        context.load_cert_chain(certificate, key, lambda: "")
    if settings.client_ca:
        context.verify_mode = ssl.CERT_REQUIRED
        _read(settings.client_ca, _BAD_CA)
        with _use(settings.client_ca, _BAD_CA):
            context.load_verify_locations(settings.client_ca)
    check_clock(certificate, datetime.now(UTC))
    return context


def check_clock(certificate: str, now: datetime) -> None:
    """Check that the certificate in a file is valid at the time ``now``.

    Raises:
        PreflightRefused: it is not. Usually, the VM's clock is not set yet.
        ConfigurationError: the file cannot be read.
        StorageError: it cannot be read now, for a reason that may pass.
    """
    dates = x509.load_pem_x509_certificate(_read(certificate, _BAD_CERTIFICATE))
    since, until = dates.not_valid_before_utc, dates.not_valid_after_utc
    if now < since:
        raise PreflightRefused(
            f"this machine's clock says {now:%Y-%m-%d %H:%M} UTC, before the certificate was made"
            f" ({since:%Y-%m-%d %H:%M})",
            path=certificate,
            hint="Set the clock (timedatectl set-ntp true). The unit starts the agent again.",
        )
    if now > until:
        raise PreflightRefused(
            f"the certificate expired at {until:%Y-%m-%d %H:%M} UTC; it is {now:%Y-%m-%d} now",
            path=certificate,
            hint="Renew the certificate, or set the clock if it is wrong.",
        )


def _read(path: str, what: str) -> bytes:
    """Return the content of the file. OpenSSL says less about a file that cannot be read."""
    with _use(path, what), open(path, "rb") as file:
        return file.read()


@contextmanager
def _use(path: str, what: str, hint: str = "") -> Iterator[None]:
    """Raise an OSError of the block as the error that reports it about the file at ``path``."""
    try:
        yield
    except ssl.SSLError as error:  # its number is not one of errno(3)
        raise ConfigurationError(f"{what} ({error.strerror or error})", path=path) from error
    except OSError as error:
        raise unusable_file(error, what, path, hint) from error
