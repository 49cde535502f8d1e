"""The accelerator, if it is installed and wanted: Python does the same without it, only slower.

Each function of the accelerator returns None for whatever is unusual. The caller then has Python do
all of that work again, so there is one place that decides and explains.
"""

from __future__ import annotations

import os

from shared import __version__

try:
    import plexodus_native
except ImportError:
    _installed = None
else:
    _installed = plexodus_native

SWITCH = "PLEXODUS_NATIVE"
"""Environment variable that switches the accelerator off with the value 0."""

native = _installed
"""The accelerator, or None. One of another version would be a stranger: it is left alone."""
if native is not None and (os.environ.get(SWITCH) == "0" or native.__version__ != __version__):
    native = None
