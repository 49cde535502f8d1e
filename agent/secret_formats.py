"""Output formats of the pairing string: plain, a Kubernetes Secret, or a kubectl command.

The Secret's key is the name of the variable that the puller reads, so a pod needs only ``envFrom``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.wire.pairing import PAIRING_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable


def bare(pairing: str, _name: str) -> str:
    """Return the pairing string itself."""
    return pairing


def secret_yaml(pairing: str, name: str) -> str:
    """Return a Secret's manifest, for ``kubectl apply -f -`` or for sealing and committing."""
    return (
        "apiVersion: v1\n"
        "kind: Secret\n"
        "metadata:\n"
        f'  name: "{name}"\n'
        "type: Opaque\n"
        "stringData:\n"
        f'  {PAIRING_VARIABLE}: "{pairing}"'
    )


def kubectl(pairing: str, name: str) -> str:
    """Return a command to paste. It passes the string on stdin, so no process list shows it."""
    return (
        f"kubectl create secret generic {name} --from-env-file=/dev/stdin <<'EOF'\n"
        f"{PAIRING_VARIABLE}={pairing}\n"
        "EOF"
    )


OUTPUTS: dict[str, Callable[[str, str], str]] = {
    "string": bare,
    "secret-yaml": secret_yaml,
    "kubectl": kubectl,
}
