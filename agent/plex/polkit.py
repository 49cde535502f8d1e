"""A check of whether systemd would let a user stop or start a unit, without doing either.

polkit itself cannot be queried. Its rules decide by the unit's name, which only root may pass on
(``polkit_backend_interactive_authority_check_authorization`` in polkit). systemd can be queried:
the check requests a job in a mode that is invalid for every unit. systemd rejects that mode only
after polkit has granted the request (``bus_unit_method_start_generic`` and ``manager_add_job`` in
systemd).
"""

from __future__ import annotations

import os
import re
import subprocess
from contextlib import suppress

from agent.host.state_owner import agent_user
from shared.errors import CutoverRefused

PLEX_UNIT = "plexmediaserver.service"
SNAP_UNIT = "snap.plexmediaserver.plexmediaserver.service"
PACKAGED_UNITS = (PLEX_UNIT, SNAP_UNIT)
"""The units that the package's rule and its fence are for."""
_RULES = "/usr/share/polkit-1/rules.d/50-plexodus.rules"
_OLD_POLKIT = (
    "polkit 0.105 (Ubuntu 22.04; see 'pkaction --version') reads no rules: copy"
    " /usr/share/plexodus/polkit-0.105.pkla as its comments explain."
)
_SECONDS = 8.0
_IMPOSSIBLE = {"stop": ("StopUnit", "isolate"), "start": ("StartUnit", "triggering")}
"""For each verb, the method and a mode that is valid only for another verb."""
_ALLOWED = "org.freedesktop.DBus.Error.InvalidArgs"
"""The error for an invalid mode: polkit has granted the request."""
_ERROR = re.compile(r"^Error ([\w.]+)", re.MULTILINE)


def check_rights(unit: str, state: str, otherwise: str) -> None:
    """Raise an error unless the agent's user may stop and start ``unit``. Do neither.

    Args:
        unit: full name of the unit, as in systemd's property ``Id``.
        state: the agent's state folder. The agent runs as its owner.
        otherwise: advice for a move without these rights, for the error's hint.

    Raises:
        CutoverRefused: If the agent's user may not stop or start the unit.
    """
    user = agent_user(state)
    if user is None and os.geteuid() == 0:
        return
    for verb in _IMPOSSIBLE:
        if error := _refusal(unit, verb, user):
            raise CutoverRefused(
                f"the agent's user may not {verb} {unit}: systemd reports {error}",
                hint=f"{_advice(unit)} {_OLD_POLKIT} {otherwise}",
            )


def _refusal(unit: str, verb: str, user: tuple[int, int] | None) -> str | None:
    """Return the D-Bus error with which systemd would refuse a request; None if it would not.

    Return None, too, if systemd cannot be queried, because there is no bus or no ``dbus-send``.
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
            user=user and user[0],
            group=user and user[1],
            extra_groups=user and [],
        )
        found = _ERROR.search(done.stderr)
        if found is not None and found[1] != _ALLOWED:
            return found[1]
    return None


def _advice(unit: str) -> str:
    if unit in PACKAGED_UNITS:
        return f"The package's polkit rule, {_RULES}, is missing or overridden."
    copy = f"/etc/polkit-1/rules.d/50-plexodus-{unit}.rules"
    return f"Run: sed 's/{PLEX_UNIT}/{unit}/' {_RULES} > {copy}."
