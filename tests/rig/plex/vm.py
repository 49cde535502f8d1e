"""A VM with Plex: its unit with a drop-in, and a library that only its user can read."""

from __future__ import annotations

import base64
import json
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from rig.plex import standin
from rig.virtual_machine import REPOSITORY

if TYPE_CHECKING:
    from rig.virtual_machine import VirtualMachine


def _database() -> str:
    """Return a small sound database, base64."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE metadata_items (id INTEGER PRIMARY KEY)")
        return base64.b64encode(connection.serialize()).decode()


AGENT = "plexodus-agent.service"
UNIT = "plexmediaserver.service"
SETTINGS = "/etc/plexodus/agent.toml"
PROGRAM = "/usr/lib/plexmediaserver/standin.py"
PLEX = "/srv/media server/plex"
SUPPORT = f"{PLEX}/Library/Application Support"
VARIABLE = "PLEX_MEDIA_SERVER_APPLICATION_SUPPORT_DIR"
UNIT_FILE = f"""\
[Unit]
Description=Plex Media Server, a stand-in
[Service]
User=plex
Environment="{VARIABLE}=/var/lib/plexmediaserver/Library/Application Support"
ExecStart=/bin/sleep infinity
"""
DROP_IN = f"""\
[Service]
Environment="{VARIABLE}={SUPPORT}"
"""
AT_WORK = f"""\
[Service]
User=plex
ExecStart=
ExecStart=/opt/plexodus/bin/python3 {PROGRAM} "{SUPPORT}/Plex Media Server"
[Install]
WantedBy=multi-user.target
"""
MAKE_LIBRARY = f"""
useradd --system --home-dir '{PLEX}' plex
mkdir -p '{SUPPORT}/Plex Media Server/Plug-in Support/Databases'
cd '{SUPPORT}/Plex Media Server'
echo '<Preferences MachineIdentifier="m"/>' > Preferences.xml
base64 -d > 'Plug-in Support/Databases/com.plexapp.plugins.library.db' <<< '{_database()}'
mkdir Media; head -c 40000000 /dev/urandom > Media/index-sd.bif
for i in $(seq 2000); do mkdir -p Metadata/$((i % 50)); echo $i > Metadata/$((i % 50))/$i.xml; done
ln -s ../1/1.xml Metadata/2/link
chown -R plex:plex '{PLEX}'; chmod -R go= '{PLEX}'
"""


def give_plex(vm: VirtualMachine) -> None:
    """Write a stand-in for Plex, and another service's unit."""
    vm.write("/etc/systemd/system/plexmediaserver.service", UNIT_FILE)
    vm.write("/etc/systemd/system/plexmediaserver.service.d/folder.conf", DROP_IN)
    vm.write("/etc/systemd/system/other.service", UNIT_FILE.replace("Plex", "Not Plex"))
    vm.shell(MAKE_LIBRARY)
    vm.run("systemctl", "daemon-reload")


def have_plex_write(vm: VirtualMachine) -> None:
    """Have Plex's unit run the stand-in that writes all the time, and start at boot."""
    vm.write(PROGRAM, Path(standin.__file__).read_text())
    vm.write(f"/etc/systemd/system/{UNIT}.d/standin.conf", AT_WORK)
    vm.shell(f"systemctl daemon-reload; systemctl enable --now {UNIT}")


def give_settings(vm: VirtualMachine, *lines: str) -> None:
    """Put settings of the agent before all others."""
    file = vm.root / SETTINGS.lstrip("/")
    file.write_text("".join(f"{line}\n" for line in [*lines, file.read_text()]))


def phase(vm: VirtualMachine) -> str:
    """Return the state of the cutover."""
    status = json.loads(vm.run("plexodus-agent", "status", "--json").stdout)
    return str(status["cutover"]["phase"])


def is_running(vm: VirtualMachine, unit: str = UNIT) -> bool:
    """Return whether Plex's unit is active."""
    return vm.show(unit, "ActiveState") == "active"


_CONTROL = """\
Package: plexmediaserver
Version: {version}
Architecture: all
Maintainer: nobody <nobody@example.org>
Description: a stand-in
"""
_POSTINST = """\
#!/bin/sh
set -e
systemctl daemon-reload
systemctl enable plexmediaserver.service
systemctl start plexmediaserver.service
"""
"""As Plex's own package does at each installation and upgrade."""


def install_plex_package(vm: VirtualMachine, version: str) -> None:
    """Install or upgrade a package with Plex's unit."""
    folder = "/root/plex"
    vm.write(f"{folder}/DEBIAN/control", _CONTROL.format(version=version))
    vm.write(f"{folder}/DEBIAN/postinst", _POSTINST)
    unit = f"{UNIT_FILE}[Install]\nWantedBy=multi-user.target\n"
    vm.write(f"{folder}/lib/systemd/system/plexmediaserver.service", unit)
    vm.shell(
        f"chmod 755 {folder}/DEBIAN/postinst; dpkg-deb --build --root-owner-group {folder}"
        f" /root/plex.deb; dpkg --install /root/plex.deb"
    )


def agent_package() -> Path:
    """Return the package for this machine that ``make deb`` built."""
    done = subprocess.run(
        ["dpkg", "--print-architecture"], check=True, capture_output=True, text=True
    )
    [package] = (REPOSITORY / "build").glob(f"plexodus-agent_*_{done.stdout.strip()}.deb")
    return package


def install_agent(vm: VirtualMachine) -> None:
    """Install or reinstall the package that ``make deb`` built."""
    shutil.copy(agent_package(), vm.root / "root" / "agent.deb")
    vm.shell(
        "test -e /root/updated || apt-get update -qq; touch /root/updated;"
        " DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends"
        " --reinstall /root/agent.deb"
    )


def pair_and_start(vm: VirtualMachine) -> str:
    """Pair, start the service, and return the pairing string."""
    said = vm.run("plexodus-agent", "pair", "--address", "127.0.0.1:8443").stdout
    vm.run("systemctl", "restart", "plexodus-agent.service")
    return said.strip()


def paths(vm: VirtualMachine) -> set[str]:
    """Return all paths except those of apt, of logs and of running processes."""
    skipped = "-path /proc -o -path /sys -o -path /run -o -path /dev -o -path /tmp -o -path /srv"
    skipped += " -o -path /var/lib/apt -o -path /var/lib/dpkg -o -path /var/cache -o -path /var/log"
    skipped += " -o -path /root -o -path /var/tmp -o -path /var/lib/systemd"
    return set(vm.shell(f"find / \\( {skipped} \\) -prune -o -print").splitlines())
