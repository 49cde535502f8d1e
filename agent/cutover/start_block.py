"""Drop-ins that keep a moved Plex stopped after the agent's package and its fence are removed.

A drop-in, not a mask: a mask cannot replace a unit file in ``/etc/systemd/system``, and an upgrade
of Plex's own package would fail on it. systemd skips a start whose condition is not met, and the
upgrade passes.
"""

from __future__ import annotations

import glob
import os
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

from agent.cutover.record import CutoverRecord, Fence
from agent.cutover.state import Cutover
from shared.durable import fsync_folder, write_durably
from shared.errors import StorageError

if TYPE_CHECKING:
    from agent.settings import Settings

_UNITS = "/etc/systemd/system"
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
_SYSTEMCTL = "systemctl"
_SECONDS = 8.0


def keep_stopped(settings: Settings, units: str = _UNITS) -> list[str]:
    """Write a drop-in for each unit of a Plex that has moved, durably, and return their paths.

    Returns none if no library has moved, or if Plex has no unit: then its ``stop_command`` has
    stopped it for good, or its container cannot be started. Needs root.

    Args:
        settings: the agent's settings.
        units: the folder of the administrator's units.

    Raises:
        OSError: If a drop-in cannot be written.
    """
    record = Cutover()
    with suppress(StorageError):  # then the fence counts
        record = CutoverRecord(settings.state).load()
    if record.phase != "committed" and not Fence(settings.state).is_up():
        return []
    paths = []
    for unit in _units(settings, record):
        path = os.path.join(units, f"{unit}.d", _NAME)
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        text = _TEXT.format(path=path, unit=unit, units=units, name=_NAME)
        write_durably(path, text.encode(), 0o644)
        fsync_folder(units)
        _reload()
        paths.append(path)
    return paths


def lift_start_blocks(units: str = _UNITS) -> bool:
    """Remove all such drop-ins, durably; return whether there was one.

    Raises:
        OSError: If one cannot be removed.
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
    """Have systemd read its files again, unless none runs, as in a chroot."""
    if os.path.isdir("/run/systemd/system"):
        subprocess.run([_SYSTEMCTL, "daemon-reload"], check=False)  # noqa: S603 - constants


def _units(settings: Settings, record: Cutover) -> list[str]:
    """Return Plex's unit in the settings and in the record. They may have changed since."""
    found = set[str]()
    has_unit = not settings.stop_command and not settings.container and record.container is None
    if has_unit and record.starting[:1] in ([], [_SYSTEMCTL]):
        found.add(settings.unit)
    if record.starting[:1] == [_SYSTEMCTL]:
        found.add(record.starting[-1])
    return sorted({_full_name(unit) for unit in found})


def _full_name(unit: str) -> str:
    """Return systemd's name of the unit: an alias, or a name without suffix, has no drop-ins."""
    command = [_SYSTEMCTL, "show", "--property=Id", "--value", "--", unit]
    try:
        done = subprocess.run(  # noqa: S603 - no shell, and no option can be smuggled in
            command, check=True, capture_output=True, timeout=_SECONDS, encoding="utf-8"
        )
    except (OSError, subprocess.SubprocessError, UnicodeError):
        return unit if "." in unit else f"{unit}.service"
    return done.stdout.strip()
