"""The pairing as people carry it into a cluster: bare, as a Secret, or as a command.

The Secret's key is the variable that the puller reads, so that ``envFrom`` is all a pod needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.wire.pairing import PAIRING_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable


def bare(pairing: str, _name: str) -> str:
    """The string itself."""
    return pairing


def secret_yaml(pairing: str, name: str) -> str:
    """A manifest, for ``kubectl apply -f -`` or to be sealed and committed."""
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
    """A command to paste: the string goes through a pipe, so that no process list shows it."""
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
