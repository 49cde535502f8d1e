"""Whether systemd would let a user stop or start a unit, asked without doing either.

polkit itself does not answer: it lets only root pass on the unit's name, by which rules decide
(``polkit_backend_interactive_authority_check_authorization`` in polkit). systemd does. It is asked
for a job of a mode that it refuses for every unit, but only after polkit has said yes
(``bus_unit_method_start_generic`` and ``manager_add_job`` in systemd).
"""

from __future__ import annotations

import os
import re
import subprocess
from contextlib import suppress
from dataclasses import dataclass

from shared.errors import CutoverRefused

PLEX_UNIT = "plexmediaserver.service"
"""The unit that the package's rule is for."""
_RULES = "/usr/share/polkit-1/rules.d/50-plexodus.rules"
_OLD_POLKIT = (
    "polkit 0.105 (Ubuntu 22.04; 'pkaction --version' says it) reads no rules: what to copy there,"
    " and what that allows, is in /usr/share/plexodus/polkit-0.105.pkla."
)
_SECONDS = 8.0
_IMPOSSIBLE = {"stop": ("StopUnit", "isolate"), "start": ("StartUnit", "triggering")}
"""For each verb the method and a mode that is only valid for another verb."""
_ALLOWED = "org.freedesktop.DBus.Error.InvalidArgs"
"""Polkit has said yes, and systemd refuses the mode."""
_ERROR = re.compile(r"^Error ([\w.]+)", re.MULTILINE)


@dataclass(frozen=True)
class User:
    """The user that asks polkit, if it is not the current one."""

    uid: int
    gid: int


def refusal(unit: str, verb: str, user: User | None = None) -> str | None:
    """Return the D-Bus error by which systemd would refuse the order; None if it would not.

    None, too, where systemd cannot be asked: there is no bus, or no ``dbus-send``.

    Args:
        unit: its full name, as systemd's property ``Id`` has it.
        verb: ``stop`` or ``start``.
        user: who would give the order; None for the current user.
    """
    method, mode = _IMPOSSIBLE[verb]
    command = [
        *("dbus-send", "--system", "--print-reply", "--dest=org.freedesktop.systemd1"),
        *("/org/freedesktop/systemd1", f"org.freedesktop.systemd1.Manager.{method}"),
        *(f"string:{unit}", f"string:{mode}"),
    ]
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(  # noqa: S603 - no shell, and no option can be smuggled in
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SECONDS,
            encoding="utf-8",
            errors="replace",
            user=None if user is None else user.uid,
            group=None if user is None else user.gid,
            extra_groups=None if user is None else [],
        )
        found = _ERROR.search(done.stderr)
        if found is not None and found[1] != _ALLOWED:
            return found[1]
    return None


def check_rights(unit: str, state: str, otherwise: str) -> None:
    """Make sure that the agent's user may stop and start ``unit``; neither is done.

    Args:
        unit: its full name, as systemd's property ``Id`` has it.
        state: the agent's state folder, whose owner the agent runs as.
        otherwise: what can be done without these rights, for the error's hint.

    Raises:
        CutoverRefused: it may not.
    """
    user = None
    if os.geteuid() == 0 and (user := _owner(state)) is None:
        return
    for verb in _IMPOSSIBLE:
        if error := refusal(unit, verb, user):
            raise CutoverRefused(
                f"the agent's user may not {verb} {unit}: systemd answers {error}",
                hint=f"{_advice(unit)} {_OLD_POLKIT} {otherwise}",
            )


def _owner(folder: str) -> User | None:
    """Return the owner of ``folder``; None if that is root, or if the folder does not exist yet."""
    try:
        found = os.stat(folder)
    except FileNotFoundError:
        return None
    return User(found.st_uid, found.st_gid) if found.st_uid != 0 else None


def _advice(unit: str) -> str:
    if unit == PLEX_UNIT:
        return f"The package's polkit rule, {_RULES}, is missing or overruled."
    copy = f"/etc/polkit-1/rules.d/50-plexodus-{unit}.rules"
    return f"Run: sed 's/{PLEX_UNIT}/{unit}/' {_RULES} > {copy}."
