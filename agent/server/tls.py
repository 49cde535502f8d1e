"""The agent's TLS: with its own certificate, or with one from a CA.

The pairing pins the agent's own certificate; one from a CA is verified as usual.
"""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cryptography import x509

from agent.server.credentials import certificate_path, key_path, token_hash_path
from shared.errors import ConfigurationError, PreflightRefused

if TYPE_CHECKING:
    from agent.settings import Settings

_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2: forward secrecy and authenticated encryption only (RFC 9325 section 4.2)."""


def server_tls(settings: Settings) -> ssl.SSLContext:
    """Return the context for TLS 1.2 or newer; with ``client_ca``, clients need its certificate.

    Raises:
        ConfigurationError: the agent was never paired, or its files cannot be used.
        PreflightRefused: the clock of this machine is wrong.
    """
    state = settings.state
    certificate = settings.certificate or certificate_path(state)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    try:
        with open(token_hash_path(state), "rb"):
            pass
    except OSError as error:
        raise ConfigurationError(
            f"the agent is not paired ({error.strerror})",
            path=state,
            hint="Run 'plexodus-agent pair' first.",
        ) from error
    try:
        # Without a function for the password, OpenSSL asks for one on the terminal.
        context.load_cert_chain(certificate, settings.key or key_path(state), lambda: "")
    except OSError as error:  # SSLError among them
        raise ConfigurationError(
            f"certificate and key cannot be used ({error.strerror or error})", path=certificate
        ) from error
    if settings.client_ca:
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(settings.client_ca)
        except OSError as error:
            raise ConfigurationError(
                f"the CA of the clients cannot be used ({error.strerror or error})",
                path=settings.client_ca,
            ) from error
    check_clock(certificate, datetime.now(UTC))
    return context


def check_clock(certificate: str, now: datetime) -> None:
    """Check that the certificate in a file is valid at the time ``now``.

    Raises:
        PreflightRefused: it is not. Usually, the VM's clock is not set yet.
    """
    with open(certificate, "rb") as file:
        dates = x509.load_pem_x509_certificate(file.read())
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
