"""The ways to move a library that are compared: ours, and what people use today.

Each starts from a library that lies on disk and ends when the copy is durable: ours by itself, the
others by a ``sync -f`` that is part of their time. Servers that people leave running (the agent,
rsync's daemon, Python's web server) are started before the clock is.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rig.ports import reserve_port

from bench.memory import MemoryWatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.link import Link

_WAIT_SECONDS = 20.0
_BIN = Path(sys.executable).parent


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
    memory_mib: dict[str, float] = field(default_factory=dict)
    """Peak resident size of each side's processes together."""


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
        started = time.monotonic()
        puller = subprocess.Popen(pull, stdout=output, stderr=output, env=environment)
        with MemoryWatch({"agent": server.pid, "puller": puller.pid}) as memory:
            code = puller.wait()
        seconds = time.monotonic() - started
    if code != 0:
        sys.exit(log.read_text())
    return Measurement(seconds, memory.peaks_mib)


def tar_http(job: Job) -> Measurement:
    """S, today's way: a tar.gz, Python's web server, curl, tar."""
    served, port = job.folder / "served", reserve_port()
    served.mkdir()
    server = ["python3", "-m", "http.server", str(port), "--directory", str(served)]
    url = f"http://{job.link.source_address}:{port}/library.tar.gz"
    with _running([*job.link.on_source, *server], job, port):
        started = time.monotonic()
        _run(job, job.link.on_source, f"tar czf {served}/library.tar.gz -C {_parent(job)} Library")
        _run(job, job.link.on_target, f"curl -fsS -o {job.folder}/library.tar.gz {url}")
        _run(job, job.link.on_target, f"tar xzf {job.folder}/library.tar.gz -C {job.target}")
        return _durable(job, started)


def tar_zstd(job: Job) -> Measurement:
    """Z: tar, compressed by all cores, streamed over TCP, unpacked."""
    port = reserve_port()
    address = f"{job.link.source_address}:{port}"
    send = f"tar cf - -C {_parent(job)} Library | zstd -q -1 -T0 | socat -u - TCP-LISTEN:{port}"
    receive = (
        f"socat -u TCP:{address},retry=400,interval=0.01 - | zstd -q -d | tar xf - -C {job.target}"
    )
    started = time.monotonic()
    sender = subprocess.Popen([*job.link.on_source, "bash", "-o", "pipefail", "-c", send])
    _run(job, job.link.on_target, receive)
    if sender.wait(timeout=60) != 0:
        sys.exit(f"failed: {send}")
    return _durable(job, started)


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
        started = time.monotonic()
        _run(job, job.link.on_target, f"rsync -a {url} {job.target}/")
        return _durable(job, started)


def cp(job: Job) -> Measurement:
    """Cp -a: the same machine, no network at all."""
    started = time.monotonic()
    _run(job, [], f"cp -a {shlex.quote(str(job.library))} {job.target}/")
    return _durable(job, started)


PEERS: dict[str, Callable[[Job], Measurement]] = {
    "plexodus": plexodus,
    "S": tar_http,
    "Z": tar_zstd,
    "R": rsync_daemon,
    "cp": cp,
}


def _parent(job: Job) -> str:
    return shlex.quote(str(job.library.parent))


def _run(job: Job, prefix: list[str], command: str) -> None:
    subprocess.run([*prefix, "bash", "-o", "pipefail", "-c", command], check=True, cwd=job.folder)


def _durable(job: Job, started: float) -> Measurement:
    subprocess.run(["sync", "-f", job.target], check=True)
    return Measurement(time.monotonic() - started)


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
