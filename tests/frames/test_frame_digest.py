"""The digest of a frame, computed with GNU tar and OpenSSL, and the parts a client can omit."""

from __future__ import annotations

import hashlib
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from shared.frames.plan import FRAME

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rig.programs import Agent

_OPENERS = {"tar": "cat", "tar.gz": "gzip -dc", "tar.zst": "zstd -dc"}


def _get(agent: Agent, path: str, into: Path, *options: str) -> dict[str, str]:
    """Request with curl, and return the header fields with names in lower case."""
    head = into.with_suffix(".head")
    curl = ["curl", "-fsSk", "-u", f"x:{agent.token}", "-D", str(head), "-o", str(into), *options]
    subprocess.run([*curl, f"{agent.url}{path}"], check=True)
    lines = (line.partition(": ") for line in head.read_text().splitlines() if ": " in line)
    return {name.lower(): value.strip('"') for name, _, value in lines}


@pytest.fixture
def pictures(tmp_path: Path, new_agent: Callable[[Path], Agent]) -> Agent:
    """Start an agent for compressible and incompressible files and one of two frames."""
    library = tmp_path / "vm" / "Library"
    (library / "empty folder").mkdir(parents=True)
    (library / "a picture.jpg").write_bytes(os.urandom(FRAME // 2))
    (library / "another.jpg").write_bytes(os.urandom(FRAME // 4))
    (library / "nothing").write_bytes(b"")
    (library / "text").write_text("words " * 10_000)
    (library / "text to the picture").symlink_to("text")
    (library / "video").write_bytes(os.urandom(FRAME + 5))
    agent = new_agent(library)
    agent.pair()
    agent.start()
    return agent


@pytest.mark.parametrize("encoding", _OPENERS)
def test_digest_as_the_documentation_says(pictures: Agent, tmp_path: Path, encoding: str) -> None:
    """A frame's digest is that of its files' digests, in any encoding."""
    frames = f"/v1/snapshots/{pictures.scan().id}/frames"
    opened = f"{_OPENERS[encoding]} frame | tar xf - --to-command 'openssl dgst -sha256 -binary'"
    packed = _get(pictures, f"{frames}/0.{encoding}", tmp_path / "frame")
    by_hand = subprocess.run(
        ["bash", "-c", opened], check=True, cwd=tmp_path, capture_output=True
    ).stdout
    rest = _get(pictures, f"{frames}/2.{encoding}", tmp_path / "rest")
    piece = hashlib.sha256((pictures.library / "video").read_bytes()[FRAME:]).digest()

    assert len(by_hand) == 4 * hashlib.sha256().digest_size
    assert packed["etag"] == hashlib.sha256(by_hand).hexdigest()
    assert rest["etag"] == hashlib.sha256(piece).hexdigest()


def test_what_does_not_shrink_is_stored(pictures: Agent, tmp_path: Path) -> None:
    """Compressed frames of noise are larger than the noise by some bytes a block only."""
    frames = f"/v1/snapshots/{pictures.scan().id}/frames"
    for encoding, per_block in (("tar.gz", 32 * 1024), ("tar.zst", 128 * 1024)):
        size = int(_get(pictures, f"{frames}/1.{encoding}", tmp_path / "f")["content-length"])
        plain = int(_get(pictures, f"{frames}/1.tar", tmp_path / "f")["content-length"])
        assert 0 < size - plain <= 32 + 6 * (plain // per_block), encoding


def test_digest_of_the_body_unless_it_is_not_wanted(pictures: Agent, tmp_path: Path) -> None:
    """The body's digest is sent unless the client gives it weight 0 (RFC 9530)."""
    frame = f"/v1/snapshots/{pictures.scan().id}/frames/0.tar.zst"
    usual = _get(pictures, frame, tmp_path / "f")
    spared = _get(pictures, frame, tmp_path / "g", "-H", "Want-Content-Digest: sha-256=0")

    assert "content-digest" in usual
    assert "content-digest" not in spared
    assert (tmp_path / "f").read_bytes() == (tmp_path / "g").read_bytes()
