"""The agent's half of the pairing in its state folder: certificate, key, and the token's hash.

::

    STATE/agent.crt      self-signed certificate (PEM); its SHA-256 is the pairing's fingerprint
    STATE/agent.key      its private key, mode 0600
    STATE/token.sha256   hash of the one token that is valid now
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from shared.digest import sha256
from shared.durable import write_durably
from shared.wire.pairing import Pairing, new_token

if TYPE_CHECKING:
    from shared.digest import Buffer

_VALID = timedelta(days=3650)
"""Clients trust the fingerprint, so an expiry would only break migrations."""


def certificate_path(state: str) -> str:
    """Return the path of the certificate."""
    return os.path.join(state, "agent.crt")


def key_path(state: str) -> str:
    """Return the path of the private key."""
    return os.path.join(state, "agent.key")


def token_hash_path(state: str) -> str:
    """Return the path of the valid token's hash."""
    return os.path.join(state, "token.sha256")


def hash_token(token: Buffer) -> str:
    """Return the hash to store of a token: 256 random bits need no salt and no slow hash."""
    return sha256(token).hex()


def make_pairing(state: str, host: str, port: int, *, is_pinned: bool = True) -> Pairing:
    """Create a new token, and a certificate if it is missing; the old token stops working.

    The pairing has the address and, with ``is_pinned``, the fingerprint of the certificate.
    Without it, clients expect a certificate of a CA.

    Raises:
        OSError: the state folder cannot be written.
    """
    os.makedirs(state, mode=0o700, exist_ok=True)
    if not (os.path.exists(certificate_path(state)) and os.path.exists(key_path(state))):
        _make_certificate(state)
    with open(certificate_path(state), "rb") as file:
        certificate = x509.load_pem_x509_certificate(file.read())
    token = new_token()
    write_durably(token_hash_path(state), hash_token(token.encode()).encode() + b"\n")
    fingerprint = certificate.fingerprint(hashes.SHA256()).hex() if is_pinned else None
    return Pairing(host=host, port=port, fingerprint=fingerprint, token=token)


def _make_certificate(state: str) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "plexodus-agent")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + _VALID)
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName("plexodus-agent")]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    no_password = serialization.NoEncryption()
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, no_password)
    write_durably(key_path(state), private)  # before the certificate that needs it
    write_durably(certificate_path(state), certificate.public_bytes(pem), 0o644)
