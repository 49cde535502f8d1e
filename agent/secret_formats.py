"""Output formats of the pairing string: plain, a Kubernetes Secret, or a kubectl command.

The Secret's key is the name of the variable that the puller reads, so a pod needs only ``envFrom``.
The command gets the string on stdin, so no process list shows it.
"""

from shared.wire.pairing import PAIRING_VARIABLE

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
