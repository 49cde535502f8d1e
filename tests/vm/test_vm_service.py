"""The package on a VM with a real systemd, from installation to purge.

The tests share one VM and run in this order.
"""

from __future__ import annotations

import configparser
import json
import re
import shutil
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from rig.oracle import rsync_differences
from rig.plex.vm import PLEX, agent_package, give_plex, paths
from rig.programs import Puller
from rig.virtual_machine import REPOSITORY, VirtualMachine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.vm

AGENT = "plexodus-agent.service"


@pytest.fixture(scope="module")
def vm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualMachine]:
    """Start a VM with Plex's unit and a library that only Plex's user can read."""
    with VirtualMachine(tmp_path_factory.mktemp("vm") / "root") as machine:
        give_plex(machine)
        yield machine


@pytest.fixture(scope="module")
def files_before(vm: VirtualMachine) -> set[str]:
    """Return every path of the VM before the installation of the package."""
    return paths(vm)


@pytest.fixture(scope="module")
def installed(vm: VirtualMachine, files_before: set[str]) -> VirtualMachine:
    """Install the package that ``make deb`` built."""
    shutil.copy(agent_package(), vm.root / "root" / "agent.deb")
    vm.shell(
        "apt-get update -qq; DEBIAN_FRONTEND=noninteractive"
        " apt-get install -y -qq --no-install-recommends /root/agent.deb"
    )
    return vm


@pytest.fixture(scope="module")
def pairing(installed: VirtualMachine) -> str:
    """Start the service, and return its pairing string."""
    said = installed.run("plexodus-agent", "pair", "--address", "127.0.0.1:8443").stdout
    installed.run("systemctl", "start", AGENT)
    return said.strip()


def new_puller(folder: Path, pairing: str) -> Puller:
    """Return a puller outside of the VM, with an empty target."""
    (folder / "config").mkdir()
    return Puller(folder / "config", folder / "puller.log", pairing)


def journal(vm: VirtualMachine) -> list[dict[str, object]]:
    """Return the agent's lines in the journal."""
    lines = vm.run("journalctl", "--unit", AGENT, "--output=cat", "--no-pager").stdout.splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def test_service_without_a_pairing_does_not_start(installed: VirtualMachine) -> None:
    """Before pairing, all files are installed, and systemd skips a start without a failure."""
    assert installed.show(AGENT, "ActiveState") == "inactive"
    assert installed.show(AGENT, "UnitFileState") == "enabled"
    installed.run("systemctl", "start", AGENT)
    assert installed.show(AGENT, "ActiveState") == "inactive"
    assert installed.show(AGENT, "ConditionResult") == "no"
    assert installed.shell("stat -c '%U %a' /var/lib/plexodus").strip() == "plexodus 700"
    assert "/etc/plexodus/agent.toml" in installed.shell("dpkg --status plexodus-agent")
    installed.shell("test -e /usr/share/man/man8/plexodus-agent.8.gz")
    assert "accelerator: in use" in installed.shell("plexodus-agent --version")


def test_shell_completes_commands(installed: VirtualMachine) -> None:
    """The package's completion knows the commands, in bash; it has those of zsh and fish, too."""
    script = (
        ". /usr/share/bash-completion/completions/plexodus-agent;"
        " COMP_WORDS=(plexodus-agent pre) COMP_CWORD=1; _plexodus_agent_completion plexodus-agent;"
        ' echo "${COMPREPLY[@]}"'
    )
    assert installed.run("bash", "-c", script).stdout == "preflight\n"
    installed.shell("grep -q compdef /usr/share/zsh/vendor-completions/_plexodus-agent")
    fish = "/usr/share/fish/vendor_completions.d/plexodus-agent.fish"
    installed.shell(f"grep -q 'complete.*plexodus-agent' {fish}")


def test_paired_service_runs_as_its_own_user(installed: VirtualMachine, pairing: str) -> None:
    """The service serves the folder in Plex's drop-in as its own user, and stores no token."""
    assert installed.show(AGENT, "ActiveState") == "active"
    assert installed.show(AGENT, "StatusText") == "Serving; waiting for a puller"
    assert journal(installed)[-1]["library"] == f"{PLEX}/Library"
    pid = installed.show(AGENT, "MainPID")
    assert installed.shell(f"stat -c %U /proc/{pid}").strip() == "plexodus"
    token = pairing.removeprefix("plexodus://").partition("@")[0]
    found = installed.run("grep", "-rl", token, "/var/lib/plexodus", "/etc", check=False)
    assert found.stdout == ""
    assert token not in json.dumps(journal(installed))


def test_pull_from_outside_brings_unreadable_files(
    installed: VirtualMachine, pairing: str, tmp_path: Path
) -> None:
    """Files of mode 0600 in folders of mode 0700 arrive without a difference."""
    puller = new_puller(tmp_path, pairing)
    finished = puller.pull()
    assert finished.code == 0, finished.text
    source = installed.root / PLEX.lstrip("/") / "Library"
    assert rsync_differences(source, puller.target / "Library") == []
    assert "frames of" in installed.show(AGENT, "StatusText")


def test_nothing_in_the_sandbox_can_write_the_library(installed: VirtualMachine) -> None:
    """The unit's user, and root without CAP_SYS_ADMIN, fail to write the library in the sandbox.

    The attempts of root show that the kernel refuses them, whatever the process could do.
    """
    unit = (installed.root / "lib/systemd/system" / AGENT).read_text()
    attempts = "; ".join(
        f"( {attempt} ) 2>&1 && echo WRITTEN"
        for attempt in (
            "touch Library/new",
            "echo x >> Library/file",
            "chmod 777 Library/file",
            "mv Library/file Library/moved",
            "rm -rf Library/file",
            "touch -d 2001-01-01 Library/file",
            "ln -s x Library/link",
            "mount -o remount,rw / ",
        )
    )
    installed.shell(f"cd '{PLEX}'; echo content > Library/file; chmod 600 Library/file")
    looks = (
        "cat Library/file && cat /etc/shadow; ls /root /home /var/log; touch /var/lib/plexodus/x"
    )
    script = f"cd '{PLEX}'; {attempts}; {looks}; echo DONE"
    installed.write("/usr/local/bin/probe", f"#!/bin/bash\n{script}\n")
    installed.run("chmod", "755", "/usr/local/bin/probe")
    for user, capabilities in (("plexodus", None), ("root", "~CAP_SYS_ADMIN")):
        probe = re.sub("(?m)^ExecStart=.*", "ExecStart=/usr/local/bin/probe", unit)
        probe = probe.replace("Type=notify", "Type=oneshot").replace("WatchdogSec=60", "")
        probe = re.sub("(?m)^Restart.*$", "", probe).replace("User=plexodus", f"User={user}")
        if capabilities is not None:
            probe = probe.replace("AmbientCapabilities=CAP_DAC_READ_SEARCH", "")
            probe = re.sub(
                "(?m)^CapabilityBoundingSet=.*", f"CapabilityBoundingSet={capabilities}", probe
            )
        installed.write(f"/etc/systemd/system/probe-{user}.service", probe)
        installed.run("systemctl", "daemon-reload")
        installed.run("systemctl", "start", f"probe-{user}.service", check=False)
        said = installed.run("journalctl", "-u", f"probe-{user}.service", "-o", "cat").stdout
        assert "DONE" in said
        assert "WRITTEN" not in said, said
        assert "content" in said  # reading works
        assert said.count("Read-only file system") >= 5, said
        assert "\nroot:" not in said  # nothing of /etc/shadow
    assert "content" in installed.shell(f"cat '{PLEX}/Library/file'")
    installed.shell(
        f"rm '{PLEX}/Library/file' /etc/systemd/system/probe-*; systemctl daemon-reload"
    )


def test_exposure_of_the_unit_is_at_most_1_5(installed: VirtualMachine) -> None:
    """``systemd-analyze`` accepts the unit and rates its exposure at most 1.5."""
    verified = installed.run("systemd-analyze", "verify", "--man=no", AGENT)
    assert verified.stdout + verified.stderr == ""
    said = installed.run("systemd-analyze", "security", "--no-pager", AGENT).stdout
    exposure = float(re.findall(r"Overall exposure level for \S+: ([\d.]+)", said)[0])
    print(f"exposure {exposure}")  # noqa: T201 - a figure for docs
    assert exposure <= 1.5


def test_every_directive_of_the_sandbox_has_a_comment() -> None:
    """Each setting of the unit's sandbox is in a paragraph with a comment."""
    text = (REPOSITORY / "agent" / "systemd" / AGENT).read_text()
    paragraphs = [part for part in text.split("\n\n") if "=" in part]
    parser = configparser.RawConfigParser(strict=False)
    parser.read_string(text)
    assert len(parser["Service"]) > 40
    assert [part for part in paragraphs if "#" not in part and "User=" not in part] == [
        "[Install]\nWantedBy=multi-user.target\n"
    ]


def test_agent_may_stop_plex_and_nothing_else(installed: VirtualMachine) -> None:
    """By polkit, the agent's user may start and stop Plex's unit, and no other."""
    installed.run("systemctl", "start", "plexmediaserver", "other")

    def systemctl(verb: str, unit: str) -> int:
        """Return the exit code of systemctl as the agent's user."""
        command = ["runuser", "-u", "plexodus", "--", "systemctl", "--no-ask-password"]
        return installed.run(*command, verb, unit, check=False).returncode

    assert systemctl("stop", "plexmediaserver.service") == 0
    assert installed.show("plexmediaserver", "ActiveState") == "inactive"
    assert systemctl("start", "plexmediaserver.service") == 0
    assert installed.show("plexmediaserver", "ActiveState") == "active"
    for verb, unit in (("stop", "other"), ("restart", "plexmediaserver"), ("mask", "other")):
        assert systemctl(verb, f"{unit}.service") != 0
    assert installed.show("other", "ActiveState") == "active"


def test_pull_resumes_after_the_service_is_killed(
    installed: VirtualMachine, pairing: str, tmp_path: Path
) -> None:
    """A killed agent is restarted by systemd, and the pull under way resumes and succeeds."""
    installed.shell("sed -i 's|^#rate = .*|rate = \"10MB/s\"|' /etc/plexodus/agent.toml")
    installed.run("systemctl", "reload", AGENT)
    puller = new_puller(tmp_path, pairing)
    process = puller.begin()
    time.sleep(2)
    pid = installed.show(AGENT, "MainPID")
    installed.shell(f"kill -KILL {pid}")
    assert puller.finished(process).code == 0
    assert installed.show(AGENT, "MainPID") not in {"0", pid}
    source = installed.root / PLEX.lstrip("/") / "Library"
    assert rsync_differences(source, puller.target / "Library") == []


def test_invalid_setting_fails_a_restart_but_not_a_reload(
    installed: VirtualMachine, pairing: str
) -> None:
    """With an invalid setting, a reload keeps the old ones, and a restart fails without a retry."""
    installed.shell("echo 'conn = 5' >> /etc/plexodus/agent.toml")
    installed.run("systemctl", "reload", AGENT)
    installed.wait_for(f"journalctl -u {AGENT} -o cat | grep 'settings not applied'")
    assert installed.show(AGENT, "ActiveState") == "active"
    assert installed.run("systemctl", "restart", AGENT, check=False).returncode != 0
    time.sleep(3)
    assert installed.show(AGENT, "ActiveState") == "failed"
    assert installed.show(AGENT, "ExecMainStatus") == "2"
    assert "conn" in str(journal(installed)[-1]["reason"])
    installed.shell("sed -i '/^rate\\|^conn/d' /etc/plexodus/agent.toml")
    installed.run("systemctl", "start", AGENT)


def test_hung_agent_is_restarted(installed: VirtualMachine, pairing: str) -> None:
    """The watchdog restarts an agent whose event loop hangs."""
    drop_in = f"/run/systemd/system/{AGENT}.d/watchdog.conf"
    installed.shell(
        f"mkdir -p $(dirname {drop_in}); printf '[Service]\\nWatchdogSec=3\\n' > {drop_in};"
        f" systemctl daemon-reload; systemctl restart {AGENT}"
    )
    pid = installed.show(AGENT, "MainPID")
    installed.shell(f"kill -STOP {pid}")
    installed.wait_for(
        f"p=$(systemctl show -P MainPID {AGENT}); [ $p != {pid} ] && [ $p != 0 ]"
        f" && systemctl is-active {AGENT}"
    )
    assert installed.show(AGENT, "NRestarts") == "1"
    installed.shell(f"rm {drop_in}; systemctl daemon-reload; systemctl restart {AGENT}")


def test_service_starts_after_a_reboot(
    installed: VirtualMachine, pairing: str, tmp_path: Path
) -> None:
    """After a reboot the agent runs again, with the same pairing."""
    installed.reboot()
    installed.wait_for(f"systemctl is-active {AGENT}")
    finished = new_puller(tmp_path, pairing).pull()
    assert finished.code == 0, finished.text
    print(installed.run("journalctl", "-b", "-u", AGENT, "--no-pager").stdout)  # noqa: T201


def test_purge_leaves_nothing(
    installed: VirtualMachine, pairing: str, files_before: set[str]
) -> None:
    """Removal keeps the pairing. Purge leaves no file, no user and no listener."""
    installed.run("apt-get", "remove", "-y", "-qq", "plexodus-agent")
    installed.shell("test -e /var/lib/plexodus/token.sha256; test -e /etc/plexodus/agent.toml")
    installed.run("apt-get", "purge", "-y", "-qq", "plexodus-agent")
    installed.run("apt-get", "autoremove", "--purge", "-y", "-qq")
    assert installed.run("getent", "passwd", "plexodus", check=False).returncode == 2
    assert installed.run("getent", "group", "plexodus", check=False).returncode == 2
    left = {path for path in paths(installed) - files_before if "plexodus" in path}
    assert left == set()
    assert installed.run("systemctl", "cat", AGENT, check=False).returncode != 0
    listening = subprocess.run(["ss", "-ltn"], check=True, capture_output=True, text=True).stdout
    assert ":8443 " not in listening
