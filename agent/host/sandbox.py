"""A check of whether systemd has put the service into its sandbox.

Where a container on the host refuses namespaces, as Proxmox's containers do without nesting,
systemd starts the service without them and says so only in its debug log. The capability to read
any file would then reach keys and passwords.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress

_STARTED = "INVOCATION_ID"
"""Set by systemd for each service (systemd.exec(5))."""
_EFFECTIVE = re.compile(r"^CapEff:\s*([0-9a-f]+)$", re.MULTILINE)
_READ_ANY_FILE = 1 << 2
"""CAP_DAC_READ_SEARCH (capabilities(7))."""
WITHOUT_SANDBOX = (
    "systemd could not set up the sandbox, and this process may read every file: see"
    " docs/platforms/proxmox-lxc.md"
)


def is_without_sandbox() -> bool:
    """Return whether systemd runs this process with that capability, but no mounts of its own.

    With ``ProtectSystem=strict``, the root filesystem is mounted read-only for the service.
    """
    if _STARTED not in os.environ:
        return False
    capabilities = 0
    with suppress(OSError), open("/proc/self/status", encoding="ascii") as file:
        if found := _EFFECTIVE.search(file.read()):
            capabilities = int(found[1], 16)
    is_read_only = os.statvfs("/").f_flag & os.ST_RDONLY
    return bool(capabilities & _READ_ANY_FILE) and not is_read_only
