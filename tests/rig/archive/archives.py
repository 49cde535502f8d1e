"""A small library's archives, each known whole, and how what is said of them should be spelled."""

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
    """An agent, and what its archives are: each downloaded whole once, in the plainest way."""

    def __init__(self, agent: InProcess) -> None:
        self.agent = agent
        self.snapshot = agent.client.snapshot()
        self.whole = {suffix: self.get(suffix).body for suffix in SUFFIXES}
        self.tag = {suffix: self.get(suffix).headers["ETag"] for suffix in SUFFIXES}

    def get(self, suffix: str, *headers: tuple[str, str], method: str = "GET") -> Answer:
        """One request for an archive."""
        path = archive_path(self.snapshot, suffix)
        return self.agent.client.ask(path, headers, method=method)

    def status(self, *headers: tuple[str, str], method: str = "GET") -> int:
        """The status alone, for that of ``.tar.gz``."""
        return self.get("tar.gz", *headers, method=method).status


def fill(library: Path) -> None:
    """Six frames: a large file, small ones before and behind it, some of them text."""
    (library / "below").mkdir(parents=True)
    content = random.Random(3)  # noqa: S311 - the same tree each time
    (library / "below" / "large").write_bytes(content.randbytes(9_000_001))
    for number in range(9):
        (library / f"text{number}").write_bytes(b"some words " * content.randrange(100_000))


def digest(body: bytes) -> str:
    """As RFC 9530 spells it."""
    return f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"


def told(headers: Message, *but: str) -> dict[str, str]:
    """All header fields but those."""
    return {name: value for name, value in headers.items() if name not in {"Date", *but}}
