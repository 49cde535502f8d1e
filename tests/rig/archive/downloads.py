"""Archives that foreign clients download and foreign programs check."""

from __future__ import annotations

import base64
import os
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from rig.odd_tree import SECOND, everything
from rig.programs import read_log
from shared.wire import protocol

if TYPE_CHECKING:
    from pathlib import Path

    from rig.programs import Agent

ENCODINGS = ("tar", "tar.gz", "tar.zst")
GZIP_FIRST = (
    "tar.gz",
    *(pytest.param(each, marks=pytest.mark.long) for each in ("tar", "tar.zst")),
)
"""For tests that hardly depend on the encoding: ``make test`` runs the one that scripts use."""
PATIENCE = 120
"""Seconds that any program may take."""


@dataclass
class Ran:
    """The result of a program."""

    code: int
    out: str
    err: str


def run(*words: str | Path, cwd: Path | None = None) -> Ran:
    """Run a program to its end."""
    done = subprocess.run(
        words, check=False, cwd=cwd, capture_output=True, text=True, timeout=PATIENCE
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def shell(line: str, *words: str | Path, cwd: Path | None = None) -> Ran:
    """Run a line of bash with ``words`` as ``$1`` and so on. It fails if any part of it fails."""
    return run("bash", "-o", "pipefail", "-euc", line, "bash", *words, cwd=cwd)


def archive(snapshot: str, suffix: str) -> str:
    """Return the path of a snapshot's archive."""
    return protocol.archive_path(snapshot, suffix)


def curl_words(agent: Agent, path: str, *options: str | Path) -> list[str | Path]:
    """Return the command line of a curl that sends a password and follows redirects."""
    return ["curl", "-fsSLk", "-u", f"x:{agent.token}", *options, f"{agent.url}{path}"]


def curl(agent: Agent, path: str, *options: str | Path) -> Ran:
    """Run :func:`curl_words`."""
    return run(*curl_words(agent, path, *options))


def wget(agent: Agent, path: str, into: Path) -> Ran:
    """Run ``wget -c``, which sends the password only after a 401."""
    options = ["--no-check-certificate", "--user=x", f"--password={agent.token}", "-nv", "-c"]
    return run("wget", *options, "-O", into, f"{agent.url}{path}")


def aria2_words(agent: Agent, path: str, into: Path, *options: str) -> list[str | Path]:
    """Return the command line of an ``aria2c`` that resumes, with eight connections if possible."""
    who = ["--http-user=x", f"--http-passwd={agent.token}", "--check-certificate=false"]
    split = ["-c", "-x8", "-s8", "-k1M", "--quiet", "--no-conf", "--file-allocation=none"]
    where: list[str | Path] = ["-d", into.parent, "-o", into.name]
    return ["aria2c", *who, *split, *where, *options, f"{agent.url}{path}"]


def aria2(agent: Agent, path: str, into: Path, *options: str) -> Ran:
    """Run :func:`aria2_words`."""
    return run(*aria2_words(agent, path, into, *options))


def redirected(agent: Agent, *options: str) -> str:
    """Return the path to which ``/plex-library.tar.gz`` redirects curl."""
    words = ["curl", "-fsSk", "-u", f"x:{agent.token}", *options]
    said = run(*words, "-w", "%{http_code}", f"{agent.url}{protocol.LIBRARY_ARCHIVE}")
    path, _, status = said.out.partition("\n")
    assert status == "307", said.err
    return path


def announced_digest(agent: Agent, path: str) -> str:
    """Return the SHA-256 of the whole archive from ``Repr-Digest``, in hexadecimal."""
    said = curl(agent, path, "-I", "-H", "Want-Repr-Digest: sha-256=10")
    (field,) = [line for line in said.out.splitlines() if line.startswith("Repr-Digest:")]
    spelled = field.partition("sha-256=:")[2].partition(":")[0]
    return base64.b64decode(spelled).hex()


def digest(path: Path) -> str:
    """Return the digest of a file by ``sha256sum``."""
    return run("sha256sum", "-b", path).out.split(" ", 1)[0]


def frame_starts(agent: Agent, snapshot: str, suffix: str, frames: int) -> list[int]:
    """Return the start of each frame and the end of the last one, from the lengths of frames."""
    path = protocol.frame_path(snapshot, f"[0-{frames - 1}]", suffix)
    said = curl(agent, path, "-I")
    lengths = [line for line in said.out.splitlines() if line.startswith("Content-Length:")]
    assert len(lengths) == frames
    starts = [0]
    for line in lengths:
        starts.append(starts[-1] + int(line.partition(":")[2]))
    return starts


def statuses(agent: Agent, path: str) -> list[int]:
    """Return the status code of each request for ``path``, from the agent's own log."""
    return [line["status"] for line in read_log(agent.log) if line.get("path") == path]


def whole_seconds(root: Path) -> Path:
    """Round every mtime in ``root`` down to seconds, because a tar has no nanoseconds."""
    for path, info in everything(root).items():
        seconds = info.st_mtime_ns // SECOND * SECOND
        below = os.path.join(os.fsencode(root), path)
        os.utime(below, ns=(seconds, seconds), follow_symlinks=False)
    return root


def wait_for_size(path: Path, size: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until ``size`` bytes of a download have arrived; the client must not end before."""
    deadline = time.monotonic() + PATIENCE
    while not path.exists() or path.stat().st_size < size:
        assert process.poll() is None, "it has ended"
        assert time.monotonic() < deadline
        time.sleep(0.01)
