"""How the agent proves that it is the paired one: its certificate's fingerprint, or a CA."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from shared.digest import sha256
from shared.errors import ConfigurationError

if TYPE_CHECKING:
    from shared.wire.pairing import Pairing


def tls_context(pairing: Pairing) -> ssl.SSLContext:
    """TLS to the agent, with our own certificate where we have one.

    A pinned agent's certificate is looked at after the handshake, see :func:`is_paired`: the
    fingerprint stands for all that a chain of certificates would. Else OpenSSL looks for the chain,
    in the system's CAs or in SSL_CERT_FILE, and for the name.

    Raises:
        ConfigurationError: our own certificate cannot be used.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if pairing.fingerprint is not None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if pairing.certificate:
        try:
            context.load_cert_chain(pairing.certificate, pairing.key or None, lambda: "")
        except OSError as error:  # SSLError among them
            raise ConfigurationError(
                f"the client certificate cannot be used ({error.strerror or error})",
                path=pairing.certificate,
            ) from error
    return context


def is_paired(pairing: Pairing, certificate: bytes | None) -> bool:
    """Whether ``certificate`` (DER), which the handshake brought, is the paired agent's."""
    if pairing.fingerprint is None:
        return certificate is not None
    return sha256(certificate or b"").hex() == pairing.fingerprint
