"""The VM: a Debian whose systemd is booted by systemd-nspawn, on this machine's network."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Self

REPOSITORY = Path(__file__).parent.parent.parent
BASE = REPOSITORY / "build" / "vm" / "base"
NEWER = REPOSITORY / "build" / "vm" / "newer"
"""Debian 12, and 13."""
_BOOT_SECONDS = 60.0
_RUN_SECONDS = 240.0


class VirtualMachine:
    """One VM, made from the base image, in a folder that is gone at the end.

    Args:
        root: the folder of its root filesystem; must not be there.
        options: more options of systemd-nspawn.
        base: the image.
    """

    def __init__(self, root: Path, *options: str, base: Path = BASE) -> None:
        self.root = root
        self._base = base
        self._options = options
        self.console = root.with_name(f"{root.name}.console")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Made, and booted."""
        subprocess.run(["cp", "-a", "--reflink=auto", self._base, self.root], check=True)
        (self.root / "etc" / "hostname").write_text("plexvm\n")
        self._boot()
        return self

    def __exit__(self, *_: object) -> None:
        """Powered off, and removed."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        shutil.rmtree(self.root, ignore_errors=True)

    def run(
        self, *command: str | Path, check: bool = True, text: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the VM as root, as a login would."""
        done = subprocess.run(
            [
                *("nsenter", "--target", str(self._leader()), "--mount", "--uts", "--ipc"),
                *("--pid", "--root", "--wd", "--", *command),
            ],
            check=False,
            capture_output=True,
            text=True,
            input=text,
            timeout=_RUN_SECONDS,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": "/root"},
        )
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done

    def shell(self, script: str) -> str:
        """Return the output of a script; it must succeed."""
        return self.run("bash", "-euc", script).stdout

    def write(self, path: str, text: str) -> None:
        """A file in the VM."""
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def show(self, unit: str, name: str) -> str:
        """One property of a unit."""
        return self.run("systemctl", "show", f"--property={name}", "--value", unit).stdout.strip()

    def reboot(self) -> None:
        """As its administrator does it; returns when it is up again."""
        assert self._process is not None
        self.run("systemctl", "reboot", check=False)
        self._process.wait(_BOOT_SECONDS)  # nspawn ends with it, and is the hypervisor no more
        self._boot()

    def wait_for(self, script: str, seconds: float = 30.0) -> None:
        """Until a script in the VM ends well."""
        deadline = time.monotonic() + seconds
        while (done := self.run("bash", "-euc", script, check=False)).returncode != 0:
            assert time.monotonic() < deadline, f"{script}: {done.stdout}{done.stderr}"
            time.sleep(0.2)

    def _boot(self) -> None:
        with self.console.open("wb") as console:
            self._process = subprocess.Popen(
                [
                    *("systemd-nspawn", "--register=no", "--keep-unit", "--boot"),
                    *("--console=pipe", "--resolv-conf=copy-host", f"--directory={self.root}"),
                    *self._options,
                ],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
            )
        self._wait_for_boot()

    def _wait_for_boot(self) -> None:
        deadline = time.monotonic() + _BOOT_SECONDS
        while time.monotonic() < deadline:
            time.sleep(0.2)
            assert self._process is not None
            assert self._process.poll() is None, self.console.read_text(errors="replace")
            if self._leader() == 0:
                continue
            state = self.run("systemctl", "is-system-running", check=False).stdout.strip()
            if state in {"running", "degraded"}:
                return
        raise TimeoutError(self.console.read_text(errors="replace"))

    def _leader(self) -> int:
        """Return the process that is 1 in the VM; 0 before it exists."""
        assert self._process is not None
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for child in children:
            try:
                name = os.readlink(f"/proc/{child}/exe")
            except OSError:
                continue
            if name.endswith("/systemd"):
                return int(child)
        return 0
