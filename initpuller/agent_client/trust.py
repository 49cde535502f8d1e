"""The proof that an agent is the paired one: its certificate's fingerprint, or a CA."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from shared.digest import sha256
from shared.errors import ConfigurationError

if TYPE_CHECKING:
    from shared.wire.pairing import Pairing


def tls_context(pairing: Pairing) -> ssl.SSLContext:
    """Return the TLS context for the agent, with the puller's certificate if there is one.

    The certificate of a pinned agent is checked after the handshake (:func:`is_paired`), because
    its fingerprint replaces the chain of certificates. Otherwise OpenSSL verifies the name and the
    chain, with the system's CAs or those in SSL_CERT_FILE.

    Raises:
        ConfigurationError: the puller's certificate cannot be used.
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
    """Return whether ``certificate``, the server's in DER, is the paired agent's."""
    if pairing.fingerprint is None:
        return certificate is not None
    return sha256(certificate or b"").hex() == pairing.fingerprint
