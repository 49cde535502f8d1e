"""The block that prevents starts of a moved Plex after the package and its fence are removed.

A drop-in, not a mask: a mask cannot replace a unit file in ``/etc/systemd/system``, and an upgrade
of Plex's own package would fail on it. systemd skips a start whose condition is not met, and the
upgrade passes.
"""

from __future__ import annotations

import glob
import os
import subprocess
from contextlib import suppress

from shared.durable import fsync_folder, write_durably

UNITS = "/etc/systemd/system"
"""The folder of the administrator's units."""
_NAME = "50-plexodus-moved.conf"
_TEXT = """\
# The library of this Plex has moved, and plexodus-agent was removed after that. While this file is
# here, systemd skips each start of Plex: two servers with one identity confuse every client.
# To run Plex on this machine again, stop it in the cluster, and then:
#   rm {path}
#   systemctl daemon-reload
#   systemctl enable --now {unit}
[Unit]
ConditionPathExists=!{units}/%n.d/{name}
"""


class StartBlock:
    """The drop-in for one unit. Needs root.

    Args:
        unit: its full name.
        units: the folder of the administrator's units.
    """

    def __init__(self, unit: str, units: str = UNITS) -> None:
        self._unit = unit
        self._units = units
        self.path = os.path.join(units, f"{unit}.d", _NAME)

    def put_up(self) -> None:
        """Write it, durably, and have systemd read it.

        Raises:
            OSError: it cannot be written.
        """
        folder = os.path.dirname(self.path)
        os.makedirs(folder, mode=0o755, exist_ok=True)
        text = _TEXT.format(path=self.path, unit=self._unit, units=self._units, name=_NAME)
        write_durably(self.path, text.encode(), 0o644)
        fsync_folder(self._units)
        _reload()


def lift_start_blocks(units: str = UNITS) -> bool:
    """Remove each of them, durably, and have systemd forget them; return whether there was one.

    Raises:
        OSError: one cannot be removed.
    """
    found = glob.glob(os.path.join(glob.escape(units), "*.d", _NAME))
    for path in found:
        os.unlink(path)
        folder = os.path.dirname(path)
        fsync_folder(folder)
        with suppress(OSError):  # other drop-ins are in it
            os.rmdir(folder)
    if found:
        _reload()
    return bool(found)


def _reload() -> None:
    """Without a systemd that runs, as in a chroot, there is nothing to reload."""
    if os.path.isdir("/run/systemd/system"):
        subprocess.run(["systemctl", "daemon-reload"], check=False)  # noqa: S607
