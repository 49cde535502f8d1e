"""A stand-in for systemd's two programs, ``systemctl`` and ``dbus-send``, for one unit.

The real one is met by ``make test-vm``. This one can refuse what the real one rarely does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_SYSTEMCTL = """\
#!/bin/sh
cd "{here}"
verb=
for word; do
    case $word in
        --property=*) name=${{word#--property=}} ;;
        --*) ;;
        *) verb=${{verb:-$word}} ;;
    esac
done
if [ "$verb" = show ]; then
    case $name in
        Id) echo plexmediaserver.service ;;
        LoadState) echo loaded ;;
        NeedDaemonReload) echo no ;;
        ActiveState) cat active ;;
        InvocationID) cat run ;;
        DropInPaths) echo "{here}"/*.conf ;;
        ConditionResult) [ -e skips ] && echo no || echo yes ;;
    esac
    exit 0
fi
echo "$verb by $(id -u)" >> orders
[ -e refuses ] && {{ echo "Failed to $verb unit: Access denied" >&2; exit 4; }}
[ -e stalls ] && {{ echo "Failed to $verb unit: Connection timed out" >&2; exit 1; }}
[ "$verb" = stop ] && echo inactive > active
[ "$verb" = start ] && ! [ -e skips ] && echo active > active && echo "$$" > run
exit 0
"""
_DBUS_SEND = """\
#!/bin/sh
id -u > "{here}/asker"
if [ -e "{here}/refuses" ]; then
    echo "Error org.freedesktop.DBus.Error.InteractiveAuthorizationRequired: No." >&2
else
    echo "Error org.freedesktop.DBus.Error.InvalidArgs: Isolate is only valid for start." >&2
fi
exit 1
"""


@dataclass(frozen=True)
class FakeSystemd:
    """One unit, which runs at first.

    Args:
        here: a folder that every user can write; its programs go into ``PATH``.
    """

    here: Path

    def make(self, fence: str) -> None:
        """Write the programs, and a drop-in with the lines ``fence`` in the section [Unit]."""
        for name, text in (("systemctl", _SYSTEMCTL), ("dbus-send", _DBUS_SEND)):
            (self.here / name).write_text(text.format(here=self.here))
            (self.here / name).chmod(0o755)
        (self.here / "fence.conf").write_text(f"[Unit]\n{fence}\n")
        (self.here / "active").write_text("active\n")
        (self.here / "run").write_text("first\n")
        (self.here / "orders").touch()
        for each in ("active", "run", "orders"):
            (self.here / each).chmod(0o666)
        self.here.chmod(0o777)

    def drop_in(self, name: str, text: str) -> None:
        """Write another drop-in. systemd sorts them by their names."""
        (self.here / f"{name}.conf").write_text(text)

    def is_running(self) -> bool:
        """Whether the unit is active."""
        return (self.here / "active").read_text() == "active\n"

    @property
    def orders(self) -> list[str]:
        """Each start and stop that was asked for, and the user who did."""
        return (self.here / "orders").read_text().splitlines()

    def refuses(self, *, now: bool = True) -> None:
        """Have polkit say no to both."""
        (self.here / "refuses").touch() if now else (self.here / "refuses").unlink()

    def stalls(self, *, now: bool = True) -> None:
        """Have systemd fail to answer an order, so that nobody knows whether it is carried out."""
        (self.here / "stalls").touch() if now else (self.here / "stalls").unlink()

    def ends(self) -> None:
        """End the unit, as a stop does whose answer nobody got."""
        (self.here / "active").write_text("inactive\n")

    def skips(self, *, now: bool = True) -> None:
        """Have a condition of the unit that is not met: a start does nothing, and ends well."""
        (self.here / "skips").touch() if now else (self.here / "skips").unlink()
