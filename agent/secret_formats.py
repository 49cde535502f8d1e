"""Output formats of the pairing string: plain, a Kubernetes Secret, or a kubectl command.

The Secret's key is the name of the variable that the puller reads, so a pod needs only ``envFrom``.
The command gets the string on stdin, so no process list shows it.
"""

import re

from shared.wire.pairing import PAIRING_VARIABLE

KUBERNETES_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
"""Matches the whole name of a Secret, and of most other objects (RFC 1123, section 2.1)."""

_SECRET = f"""\
apiVersion: v1
kind: Secret
metadata:
  name: "{{name}}"
type: Opaque
stringData:
  {PAIRING_VARIABLE}: "{{pairing}}\""""

_KUBECTL = f"""\
kubectl create secret generic {{name}} --from-env-file=/dev/stdin <<'EOF'
{PAIRING_VARIABLE}={{pairing}}
EOF"""

OUTPUTS = {"string": "{pairing}", "secret-yaml": _SECRET, "kubectl": _KUBECTL}
"""Templates with ``pairing`` and ``name``, the name of the Secret."""
