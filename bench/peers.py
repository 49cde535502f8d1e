"""The ways to move a library that are compared: ours, and what people use today.

Each starts from a library that lies on disk and ends when the copy is durable: ours by itself, the
others by a ``sync -f`` that is part of their time. Servers that people leave running (the agent,
rsync's daemon, Python's web server, the SSH server) are started before the clock is.
"""

from __future__ import annotations

import getpass
import os
import shlex
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rig.ports import reserve_port

from bench.processes import MemoryWatch, processor_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.link import Link

_WAIT_SECONDS = 20.0
_BIN = Path(sys.executable).parent
SSHD = "/usr/sbin/sshd"
_CIPHER = "aes128-gcm@openssh.com"
"""The fastest of OpenSSH on processors with AES instructions."""


@dataclass(frozen=True)
class Job:
    """One move of one library by one method."""

    library: Path
    """The folder called Library."""
    folder: Path
    """Empty, for this move alone; the copy arrives in its folder ``target``."""
    link: Link

    @property
    def target(self) -> Path:
        """Where the library arrives."""
        return self.folder / "target"


@dataclass(frozen=True)
class Measurement:
    """The measurement of one move."""

    seconds: float
    cpu_seconds: float
    """Processor time of both sides. The kernel's own threads are not in it."""
    wire_bytes: int
    """Bytes that left the source; 0 without a shaped link."""
    memory_mib: dict[str, float] = field(default_factory=dict)
    """Peak resident size of each side's processes together."""
    agent_cpu_seconds: float = 0.0
    """Processor time of our agent, which is part of :attr:`cpu_seconds`."""


class Clock:
    """Measures one move. Create it when the servers listen.

    Args:
        link: the link that the move uses.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._wire, self._cpu = link.sent_bytes(), processor_seconds()
        self._started = time.monotonic()

    def stop(self, memory_mib: dict[str, float] | None = None) -> Measurement:
        """Return what the move has taken. Call it while the servers still run."""
        seconds, cpu = time.monotonic() - self._started, processor_seconds() - self._cpu
        sent = self._link.sent_bytes() - self._wire
        return Measurement(seconds, cpu, sent, memory_mib or {})


def plexodus(job: Job) -> Measurement:
    """The pull as it is installed: TLS, digests, journal, verification, publication, receipt."""
    port, state = reserve_port(), job.folder / "state"
    address = f"{job.link.source_address}:{port}"
    program = str(_BIN / "plexodus-agent")
    pair = [program, "pair", "--state", str(state), "--address", address]
    pairing = subprocess.run(pair, check=True, capture_output=True, text=True).stdout.strip()
    serve = [program, "serve", "--state", str(state), "--library", str(job.library)]
    agent = [*job.link.on_source, *serve, "--listen", address]
    program = str(_BIN / "plexodus-puller")
    pull = [*job.link.on_target, program, "pull", "--no-cutover"]
    pull += ["--target", str(job.target)]
    environment = os.environ | {"PLEXODUS_PAIRING": pairing}
    log = job.folder / "puller.log"
    with _running(agent, job, port) as server, log.open("wb") as output:
        clock, before = Clock(job.link), processor_seconds(server.pid)
        puller = subprocess.Popen(pull, stdout=output, stderr=output, env=environment)
        with MemoryWatch({"agent": server.pid, "puller": puller.pid}) as memory:
            code = puller.wait()
        made = clock.stop(memory.peaks_mib)
        of_agent = processor_seconds(server.pid) - before
    if code != 0:
        sys.exit(log.read_text())
    return replace(made, agent_cpu_seconds=of_agent)


def tar_http(job: Job) -> Measurement:
    """S, today's way: a tar.gz, Python's web server, curl, tar."""
    served, port = job.folder / "served", reserve_port()
    served.mkdir()
    server = ["python3", "-m", "http.server", str(port), "--directory", str(served)]
    url = f"http://{job.link.source_address}:{port}/library.tar.gz"
    with _running([*job.link.on_source, *server], job, port):
        clock = Clock(job.link)
        _run(job, job.link.on_source, f"tar czf {served}/library.tar.gz -C {_parent(job)} Library")
        _run(job, job.link.on_target, f"curl -fsS -o {job.folder}/library.tar.gz {url}")
        _run(job, job.link.on_target, f"tar xzf {job.folder}/library.tar.gz -C {job.target}")
        return _durable(job, clock)


def tar_zstd(job: Job) -> Measurement:
    """Z: tar, compressed by all cores, streamed over TCP, unpacked."""
    port = reserve_port()
    address = f"{job.link.source_address}:{port}"
    send = f"tar cf - -C {_parent(job)} Library | zstd -q -1 -T0 | socat -u - TCP-LISTEN:{port}"
    receive = (
        f"socat -u TCP:{address},retry=400,interval=0.01 - | zstd -q -d | tar xf - -C {job.target}"
    )
    clock = Clock(job.link)
    sender = subprocess.Popen([*job.link.on_source, "bash", "-o", "pipefail", "-c", send])
    _run(job, job.link.on_target, receive)
    if sender.wait(timeout=60) != 0:
        sys.exit(f"failed: {send}")
    return _durable(job, clock)


def rsync_daemon(job: Job) -> Measurement:
    """R: rsync -a from a daemon: plain text, no checksums."""
    port = reserve_port()
    settings = job.folder / "rsyncd.conf"
    settings.write_text(
        f"use chroot = no\nuid = root\ngid = root\n[vm]\npath = {_parent(job)}\nread only = yes\n"
    )
    server = ["rsync", "--daemon", "--no-detach", f"--config={settings}", f"--port={port}"]
    url = f"rsync://{job.link.source_address}:{port}/vm/Library"
    with _running([*job.link.on_source, *server], job, port):
        clock = Clock(job.link)
        _run(job, job.link.on_target, f"rsync -a {url} {job.target}/")
        return _durable(job, clock)


def rsync_ssh(job: Job) -> Measurement:
    """RS: rsync over SSH with hard links and attributes, as a careful user takes it."""
    with _ssh_server(job) as shell:
        clock = Clock(job.link)
        source = f"{job.link.source_address}:{_parent(job)}/Library"
        _run(job, job.link.on_target, f"rsync -aHX -e {shlex.quote(shell)} {source} {job.target}/")
        return _durable(job, clock)


def tar_zstd_ssh(job: Job) -> Measurement:
    """ZS: tar, compressed by all cores, over SSH, unpacked."""
    with _ssh_server(job) as shell:
        clock = Clock(job.link)
        send = shlex.quote(f"tar cf - -C {_parent(job)} Library | zstd -q -1 -T0")
        receive = f"zstd -q -d | tar xf - -C {job.target}"
        _run(job, job.link.on_target, f"{shell} {job.link.source_address} {send} | {receive}")
        return _durable(job, clock)


def cp(job: Job) -> Measurement:
    """Cp -a: the same machine, no network at all."""
    clock = Clock(job.link)
    _run(job, job.link.on_target, f"cp -a {shlex.quote(str(job.library))} {job.target}/")
    return _durable(job, clock)


PEERS: dict[str, Callable[[Job], Measurement]] = {
    "plexodus": plexodus,
    "S": tar_http,
    "Z": tar_zstd,
    "ZS": tar_zstd_ssh,
    "R": rsync_daemon,
    "RS": rsync_ssh,
    "cp": cp,
}


OVER_SSH = frozenset({"ZS", "RS"})
"""Methods that need an SSH server, see ``bench/install-tools``."""


def _parent(job: Job) -> str:
    return shlex.quote(str(job.library.parent))


def _run(job: Job, prefix: list[str], command: str) -> None:
    subprocess.run([*prefix, "bash", "-o", "pipefail", "-c", command], check=True, cwd=job.folder)


def _durable(job: Job, clock: Clock) -> Measurement:
    subprocess.run(["sync", "-f", job.target], check=True)
    return clock.stop()


@contextmanager
def _ssh_server(job: Job) -> Iterator[str]:
    """Run an SSH server with keys of its own; yield the client's command line without the host."""
    port, place = reserve_port(), job.folder
    for key in ("host", "user"):
        make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(place / key)]
        subprocess.run(make, check=True)
    settings = place / "sshd_config"
    settings.write_text(
        f"Port {port}\nListenAddress {job.link.source_address}\nHostKey {place}/host\n"
        f"AuthorizedKeysFile {place}/user.pub\nStrictModes no\nUsePAM no\nPidFile none\n"
    )
    if os.geteuid() == 0:
        os.makedirs("/run/sshd", exist_ok=True)  # sshd's own folder, which its unit makes
    shell = (
        f"ssh -q -c {_CIPHER} -i {place}/user -p {port} -l {getpass.getuser()} -F none"
        " -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
    )
    with _running([*job.link.on_source, SSHD, "-D", "-e", "-f", str(settings)], job, port):
        yield shell


@contextmanager
def _running(command: list[str], job: Job, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A server, from when it listens."""
    with (job.folder / "server.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        job.link.wait_for(port, _WAIT_SECONDS)
        yield server
    finally:
        server.kill()
        server.wait()
