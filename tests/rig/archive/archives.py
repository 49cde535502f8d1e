"""The archives of a small library, each downloaded whole, and the spelling of digests."""

from __future__ import annotations

import base64
import hashlib
import random
from typing import TYPE_CHECKING

from shared.wire.protocol import archive_path

if TYPE_CHECKING:
    from email.message import Message
    from pathlib import Path

    from rig.archive.client import Answer
    from rig.archive.in_process import InProcess

SUFFIXES = ("tar", "tar.gz", "tar.zst")


class Archives:
    """An agent with its archives, each downloaded whole once by a plain request."""

    def __init__(self, agent: InProcess) -> None:
        self.agent = agent
        self.snapshot = agent.client.snapshot()
        self.whole = {suffix: self.get(suffix).body for suffix in SUFFIXES}
        self.tag = {suffix: self.get(suffix).headers["ETag"] for suffix in SUFFIXES}

    def get(self, suffix: str, *headers: tuple[str, str], method: str = "GET") -> Answer:
        """Return the response to a request for an archive."""
        path = archive_path(self.snapshot, suffix)
        return self.agent.client.ask(path, headers, method=method)

    def status(self, *headers: tuple[str, str], method: str = "GET") -> int:
        """Return the status code of a request for the ``.tar.gz``."""
        return self.get("tar.gz", *headers, method=method).status


def fill(library: Path) -> None:
    """Make a library of six frames: a large file, with small ones before and after it."""
    (library / "below").mkdir(parents=True)
    content = random.Random(3)  # noqa: S311 - the same tree each time
    (library / "below" / "large").write_bytes(content.randbytes(9_000_001))
    for number in range(9):
        (library / f"text{number}").write_bytes(b"some words " * content.randrange(100_000))


def digest(body: bytes) -> str:
    """Return the SHA-256 of ``body`` as spelled in RFC 9530."""
    return f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"


def told(headers: Message, *but: str) -> dict[str, str]:
    """Return all header fields except ``Date`` and those in ``but``."""
    return {name: value for name, value in headers.items() if name not in {"Date", *but}}
