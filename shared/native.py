"""The accelerator, if it is installed and wanted: Python does the same without it, only slower.

Each function of the accelerator returns None for whatever is unusual. The caller then has Python do
all of that work again, so there is one place that decides and explains.
"""

from __future__ import annotations

import os

from shared import __version__

SWITCH = "PLEXODUS_NATIVE"
"""Environment variable that switches the accelerator off with the value 0."""

try:
    import plexodus_native
except ImportError as error:
    _installed = None
    state = f"not installed ({error})"
else:
    _installed = plexodus_native
    state = "in use"

native = _installed
"""The accelerator, or None. One of another version would be a stranger: it is left alone."""
if native is not None and os.environ.get(SWITCH) == "0":
    native = None
    state = f"switched off by {SWITCH}=0"
if native is not None and native.__version__ != __version__:
    state = f"left alone, because it has version {native.__version__}"
    native = None
