"""The termination message of the container, which ``kubectl describe pod`` shows."""

from __future__ import annotations

import os
import stat
from contextlib import suppress

TERMINATION_LOG = "/dev/termination-log"
"""The file that kubelet reads (Kubernetes documentation, "Customizing the termination message")."""
_MAX_BYTES = 4096


def last_word(text: str) -> None:
    """Write one line for kubelet. Outside a pod, or if the file cannot be written, do nothing."""
    with suppress(OSError):
        file = os.open(TERMINATION_LOG, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
        try:
            if stat.S_ISREG(os.fstat(file).st_mode):
                os.write(file, text.encode(errors="replace")[:_MAX_BYTES])
        finally:
            os.close(file)
