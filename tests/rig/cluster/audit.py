"""The requests that a real API server has had, and from whom, by its own audit log."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived", "ResponseStarted"],
    "rules": [{"level": "Metadata"}],
}
_LOG = "audit.log"
_POD = "authentication.kubernetes.io/pod-name"


def audit_options(folder: Path) -> tuple[str, ...]:
    """Return the API server's options for a log in ``folder`` of each request that has ended."""
    policy = folder / "audit.json"
    policy.write_text(json.dumps(_POLICY))
    return (f"--audit-policy-file={policy}", f"--audit-log-path={folder / _LOG}")


def requests_by_program(folder: Path) -> Counter[str]:
    """Return how many requests each program has made, by the name that it gives itself."""
    return Counter(each["userAgent"].partition("/")[0] for each in _entries(folder))


def requests_by_pod(folder: Path, account: str) -> Counter[str]:
    """Return how many requests each pod has made with a token of ``account``."""
    user = f"system:serviceaccount:{account}"
    ours = (each["user"] for each in _entries(folder) if each["user"].get("username") == user)
    return Counter(user.get("extra", {}).get(_POD, ["?"])[0] for user in ours)


def _entries(folder: Path) -> Iterator[dict[str, Any]]:
    with (folder / _LOG).open() as log:
        for line in log:
            yield {"userAgent": "?", "user": {}} | json.loads(line)
