"""The drop-in that the package's removal leaves behind: a Plex that has moved stays stopped."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from agent.cutover.record import CutoverRecord, Fence
from agent.cutover.start_block import UNITS, StartBlock
from agent.cutover.state import Cutover
from shared.errors import StorageError

if TYPE_CHECKING:
    from agent.settings import Settings

_SYSTEMCTL = "systemctl"
_SECONDS = 8.0


def keep_stopped(settings: Settings, units: str = UNITS) -> list[str]:
    """Keep a Plex that has moved from starting without us; return the drop-ins that do it.

    Nothing is done where no library has moved, or where Plex is no unit: then its
    ``stop_command`` has stopped it for good.

    Args:
        settings: the agent's.
        units: the folder of the drop-ins.

    Raises:
        OSError: a drop-in cannot be written.
    """
    record = _record(settings.state)
    if record.phase != "committed" and not Fence(settings.state).is_up():
        return []
    blocks = [StartBlock(unit, units) for unit in _units(settings, record)]
    for block in blocks:
        block.put_up()
    return [block.path for block in blocks]


def _record(state: str) -> Cutover:
    """Return the record of the cutover; an empty one where it cannot be read: the fence counts."""
    try:
        return CutoverRecord(state).load()
    except StorageError:
        return Cutover()


def _units(settings: Settings, record: Cutover) -> list[str]:
    """Return Plex's unit, as the settings and the record have it; they may have changed since."""
    found = set[str]()
    if not settings.stop_command and record.starting[:1] in ([], [_SYSTEMCTL]):
        found.add(settings.unit)
    if record.starting[:1] == [_SYSTEMCTL]:
        found.add(record.starting[-1])
    return sorted({_full_name(unit) for unit in found})


def _full_name(unit: str) -> str:
    """Return what systemd calls it: an alias or a name without its suffix has no drop-ins."""
    command = [_SYSTEMCTL, "show", "--property=Id", "--value", "--", unit]
    try:
        done = subprocess.run(  # noqa: S603 - no shell, and no option can be smuggled in
            command, check=True, capture_output=True, timeout=_SECONDS, encoding="utf-8"
        )
    except (OSError, subprocess.SubprocessError, UnicodeError):
        return unit if "." in unit else f"{unit}.service"
    return done.stdout.strip()
