"""The last word of a container, as ``kubectl describe pod`` shows it."""

from __future__ import annotations

import os
import stat
from contextlib import suppress

TERMINATION_LOG = "/dev/termination-log"
"""Where kubelet reads it (Kubernetes documentation, "Customizing the termination message")."""
_MAX_BYTES = 4096


def last_word(text: str) -> None:
    """Leave one line for kubelet; outside of a pod, and where it cannot be written, nothing."""
    with suppress(OSError):
        file = os.open(TERMINATION_LOG, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
        try:
            if stat.S_ISREG(os.fstat(file).st_mode):
                os.write(file, text.encode(errors="replace")[:_MAX_BYTES])
        finally:
            os.close(file)
