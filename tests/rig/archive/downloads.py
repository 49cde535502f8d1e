"""Archives fetched by clients that nobody here wrote, and judged by programs that are not ours."""

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
"""For tests of what hardly depends on the encoding: the one that scripts use, then all."""
PATIENCE = 120
"""Seconds that any program gets."""


@dataclass
class Ran:
    """How a program ended."""

    code: int
    out: str
    err: str


def run(*words: str | Path, cwd: Path | None = None) -> Ran:
    """A program to its end."""
    done = subprocess.run(
        words, check=False, cwd=cwd, capture_output=True, text=True, timeout=PATIENCE
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def shell(line: str, *words: str | Path, cwd: Path | None = None) -> Ran:
    """A line of bash, in which ``$1`` and so on are ``words``; it fails where any part of it does.

    As the users' scripts have it.
    """
    return run("bash", "-o", "pipefail", "-euc", line, "bash", *words, cwd=cwd)


def archive(snapshot: str, suffix: str) -> str:
    """The path of a snapshot's archive."""
    return protocol.archive_path(snapshot, suffix)


def curl_words(agent: Agent, path: str, *options: str | Path) -> list[str | Path]:
    """curl, with a password; failures are failures, and redirects are followed."""
    return ["curl", "-fsSLk", "-u", f"x:{agent.token}", *options, f"{agent.url}{path}"]


def curl(agent: Agent, path: str, *options: str | Path) -> Ran:
    """One run of :func:`curl_words`."""
    return run(*curl_words(agent, path, *options))


def wget(agent: Agent, path: str, into: Path) -> Ran:
    """``wget -c``, which says the password only when it is asked for it."""
    options = ["--no-check-certificate", "--user=x", f"--password={agent.token}", "-nv", "-c"]
    return run("wget", *options, "-O", into, f"{agent.url}{path}")


def aria2_words(agent: Agent, path: str, into: Path, *options: str) -> list[str | Path]:
    """``aria2c`` that goes on, and splits into eight where it knows the length."""
    who = ["--http-user=x", f"--http-passwd={agent.token}", "--check-certificate=false"]
    split = ["-c", "-x8", "-s8", "-k1M", "--quiet", "--no-conf", "--file-allocation=none"]
    where: list[str | Path] = ["-d", into.parent, "-o", into.name]
    return ["aria2c", *who, *split, *where, *options, f"{agent.url}{path}"]


def aria2(agent: Agent, path: str, into: Path, *options: str) -> Ran:
    """One run of :func:`aria2_words`."""
    return run(*aria2_words(agent, path, into, *options))


def redirected(agent: Agent, *options: str) -> str:
    """The path that curl is sent to from ``/plex-library.tar.gz``."""
    words = ["curl", "-fsSk", "-u", f"x:{agent.token}", *options]
    said = run(*words, "-w", "%{http_code}", f"{agent.url}{protocol.LIBRARY_ARCHIVE}")
    path, _, status = said.out.partition("\n")
    assert status == "307", said.err
    return path


def announced_digest(agent: Agent, path: str) -> str:
    """The whole's SHA-256 as ``Repr-Digest`` says it to whoever wants it, in hexadecimal."""
    said = curl(agent, path, "-I", "-H", "Want-Repr-Digest: sha-256=10")
    (field,) = [line for line in said.out.splitlines() if line.startswith("Repr-Digest:")]
    spelled = field.partition("sha-256=:")[2].partition(":")[0]
    return base64.b64decode(spelled).hex()


def digest(path: Path) -> str:
    """Return the digest of a file by ``sha256sum``."""
    return run("sha256sum", "-b", path).out.split(" ", 1)[0]


def frame_starts(agent: Agent, snapshot: str, suffix: str, frames: int) -> list[int]:
    """Where each frame begins and the last one ends, by what is said of the frames one by one."""
    path = protocol.frame_path(snapshot, f"[0-{frames - 1}]", suffix)
    said = curl(agent, path, "-I")
    lengths = [line for line in said.out.splitlines() if line.startswith("Content-Length:")]
    assert len(lengths) == frames
    starts = [0]
    for line in lengths:
        starts.append(starts[-1] + int(line.partition(":")[2]))
    return starts


def statuses(agent: Agent, path: str) -> list[int]:
    """How each request for ``path`` was answered, by the agent's own log."""
    return [line["status"] for line in read_log(agent.log) if line.get("path") == path]


def whole_seconds(root: Path) -> Path:
    """Take away the nanoseconds of every time in ``root``: a tar has no place for them."""
    for path, info in everything(root).items():
        seconds = info.st_mtime_ns // SECOND * SECOND
        below = os.path.join(os.fsencode(root), path)
        os.utime(below, ns=(seconds, seconds), follow_symlinks=False)
    return root


def wait_for_size(path: Path, size: int, process: subprocess.Popen[bytes]) -> None:
    """Until so much of a download that is under way has arrived."""
    deadline = time.monotonic() + PATIENCE
    while not path.exists() or path.stat().st_size < size:
        assert process.poll() is None, "it has ended"
        assert time.monotonic() < deadline
        time.sleep(0.01)
