"""A hostile agent: frames and digests that lie, and links planted for a later run."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec
import pytest
from rig.hostile.agent import (
    Reply,
    entry,
    folder,
    frame_reply,
    frame_tags,
    frame_tars,
    hardlink,
    offer_tree,
    options,
    refused,
    serving,
    symlink,
)
from rig.hostile.bombs import zstd_bomb
from rig.volume import everything

from initpuller.pull.recipe import pull
from initpuller.report.progress import PullProgress
from initpuller.volume.fidelity import EXACT
from shared import errors
from shared.frames.plan import FRAME
from shared.tree.manifest import Kind

if TYPE_CHECKING:
    from pathlib import Path

    from rig.hostile.agent import HostileAgent, Offer

    from shared.tree.manifest import Entry

TOP = folder(b"Library")
OUTSIDE = b"../../../../outside"
"""From a symlink in the library in staging."""
GIB = 1024**3
SMALL = [TOP, entry(b"Library/a", size=5)]
CONTENT = {b"Library/a": b"right"}
(TAR,) = frame_tars(SMALL, CONTENT)
(HEX,) = frame_tags(SMALL, CONTENT)
RIGHT = frame_reply(TAR, HEX)
FRAMES = {
    "decodes_to_more": (frame_reply(TAR + b"\0", HEX), errors.FrameTooLarge, 1),
    "decodes_to_less": (frame_reply(TAR[:-1], HEX), errors.FrameSizeWrong, 1),
    "empty": (frame_reply(TAR, HEX, b""), errors.FrameDamagedTwice, 2),
    "bomb": (frame_reply(TAR, HEX, zstd_bomb(GIB, GIB)), errors.FrameTooLarge, 1),
    "bomb_that_declares_nothing": (
        frame_reply(TAR, HEX, zstd_bomb(GIB, None)[:1000]),
        errors.FrameTooLarge,
        1,
    ),
    "bomb_that_declares_little": (
        frame_reply(TAR, HEX, zstd_bomb(32 * FRAME, len(TAR))),
        errors.FrameDamagedTwice,
        2,
    ),
    "trailing_bytes": (frame_reply(TAR, HEX, RIGHT.body + b"more"), errors.FrameTooLarge, 1),
    "no_zstd": (frame_reply(TAR, HEX, b"\x1f\x8bnot zstd"), errors.FrameDamagedTwice, 2),
    "wrong_digest": (
        Reply(RIGHT.body, headers={"ETag": '"' + "0" * 64 + '"'}),
        errors.FrameDamagedTwice,
        2,
    ),
    "no_etag": (Reply(RIGHT.body), errors.ProtocolViolation, 1),
    "weak_etag": (Reply(RIGHT.body, headers={"ETag": f'W/"{HEX}"'}), errors.ProtocolViolation, 1),
    "endless": (Reply(b"\0" * 65536, headers=RIGHT.headers, endless=True), errors.FrameTooLarge, 1),
    "redirect": (Reply(status=302, headers={"Location": "/other"}), errors.ProtocolViolation, 1),
    "not_modified": (Reply(status=304, headers=RIGHT.headers), errors.ProtocolViolation, 1),
}


@pytest.mark.parametrize(("reply", "kind", "tries"), FRAMES.values(), ids=FRAMES.keys())
async def test_lying_frame_is_requested_again_or_ends_the_pull(
    tmp_path: Path, reply: Reply, kind: type[errors.PlexodusError], tries: int
) -> None:
    """A damaged frame is requested again, and any other lie ends the pull."""
    offer = offer_tree(SMALL, CONTENT)
    offer.frames = [[reply]]
    agent = await refused(tmp_path, offer, kind)
    assert len([asked for asked in agent.requests if "/frames/" in asked]) == tries
    assert not any("other" in asked for asked in agent.requests)


@pytest.mark.parametrize("damage", ["wrong_digest", "no_zstd", "empty"])
async def test_frame_damaged_once(tmp_path: Path, damage: str) -> None:
    """The second request succeeds, and the library is published."""
    offer = offer_tree(SMALL, CONTENT)
    offer.frames = [[FRAMES[damage][0], RIGHT]]
    agent = await _published(tmp_path, offer)
    assert len([asked for asked in agent.requests if "/frames/" in asked]) == 2
    assert (tmp_path / "target" / "Library" / "a").read_bytes() == b"right"


SUM = offer_tree(SMALL, CONTENT).sums[0].body
SUMS = {
    "file_missing": (b"", errors.ProtocolViolation),
    "file_too_many": (SUM + SUM.replace(b"/a", b"/b"), errors.ProtocolViolation),
    "other_file": (SUM.replace(b"/a", b"/b"), errors.ProtocolViolation),
    "garbage": (b"<html>\n", errors.ProtocolViolation),
    "one_giant_line": (SUM.strip() + b"a" * 32_000 + b"\n", errors.ProtocolViolation),
    "longer_than_all_paths": (SUM * 1000, errors.ManifestTooLarge),
}


@pytest.mark.parametrize(("body", "kind"), SUMS.values(), ids=SUMS.keys())
async def test_invalid_digests_are_refused(
    tmp_path: Path, body: bytes, kind: type[errors.PlexodusError]
) -> None:
    """Only one line for each file, in order, is accepted as digests."""
    offer = offer_tree(SMALL, CONTENT)
    offer.sums = [Reply(body)]
    await refused(tmp_path, offer, kind)


async def test_endless_digests_are_cut_off(tmp_path: Path) -> None:
    """Digests are cut off at the length that the files can have."""
    offer = offer_tree(SMALL, CONTENT)
    offer.sums = [Reply(b"#" * 65536, endless=True)]
    await refused(tmp_path, offer, errors.ManifestTooLarge)
    assert not list((tmp_path / "target" / ".plexodus").glob("*.new"))


async def test_digest_of_a_file_wrong(tmp_path: Path) -> None:
    """The file is fetched again, and then the pull fails."""
    offer = offer_tree(SMALL, CONTENT)
    offer.sums = [Reply(b"0" * 64 + SUM[64:])]
    agent = await refused(tmp_path, offer, errors.TreeDiffers)
    assert len([asked for asked in agent.requests if "/frames/" in asked]) == 2


async def test_digest_of_a_file_wrong_once(tmp_path: Path) -> None:
    """The agent's next response is used, and the library is published."""
    offer = offer_tree(SMALL, CONTENT)
    offer.sums = [Reply(b"0" * 64 + SUM[64:]), Reply(SUM)]
    await _published(tmp_path, offer)
    assert (tmp_path / "target" / "Library" / "a").read_bytes() == b"right"


async def test_hard_link_with_attributes_of_its_own(tmp_path: Path) -> None:
    """A hard link with other attributes than its file is refused."""
    tree = [*SMALL, hardlink(b"Library/b", b"Library/a")]
    tree[-1] = msgspec.structs.replace(tree[-1], mode=0o777)
    await refused(tmp_path, offer_tree(tree, CONTENT), errors.TreeDiffers)


LATER_THAN_EXT4 = 2**34 * 10**9
WRONG_TIMES = {
    "file": [TOP, entry(b"Library/a", size=5)],
    "folder_within_a_frame": [TOP, folder(b"Library/a"), symlink(b"Library/b", b"a")],
    "folder_at_the_end": [TOP, folder(b"Library/a"), entry(b"Library/a/b", size=5)],
    "symlink": [TOP, symlink(b"Library/a", b"b")],
}


@pytest.mark.parametrize("tree", WRONG_TIMES.values(), ids=WRONG_TIMES.keys())
async def test_time_that_the_volume_cannot_hold(
    tmp_path: Path, tree: list[Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A time that the probe missed is found: every attribute is compared after it was set."""
    monkeypatch.setattr("initpuller.volume.fitness.probe.time_fidelity", lambda *_: EXACT)
    tree = [tree[0], msgspec.structs.replace(tree[1], mtime_ns=LATER_THAN_EXT4), *tree[2:]]
    content = {each.path: b"right" for each in tree if each.kind is Kind.FILE}
    with pytest.raises(errors.TreeDiffers) as caught:
        await _published(tmp_path, offer_tree(tree, content))
    _, only = caught.value.hint.splitlines()
    assert only.startswith("  Library/a: has the time ")


async def test_symlink_planted_by_an_earlier_run(tmp_path: Path) -> None:
    """A symlink in staging is not followed where the next manifest has a folder or file."""
    planted = [
        TOP,
        symlink(b"Library/folder", OUTSIDE + b"/folder"),
        symlink(b"Library/large", OUTSIDE + b"/secret"),
        symlink(b"Library/small", OUTSIDE + b"/secret"),
    ]
    first = offer_tree(planted)
    first.sums = [Reply(b"refuse this\n")]
    await refused(tmp_path, first, errors.ManifestTooLarge)
    staged = tmp_path / "target" / ".plexodus" / "staging" / "Library"
    assert (staged / "large").read_bytes() == b"untouched"

    second = [
        TOP,
        folder(b"Library/folder"),
        entry(b"Library/folder/file", size=4),
        entry(b"Library/large", size=FRAME + 1),
        entry(b"Library/small", size=4),
    ]
    outside = everything(tmp_path / "outside")
    await _published(tmp_path, offer_tree(second))
    assert everything(tmp_path / "outside") == outside
    library = tmp_path / "target" / "Library"
    assert not any(path.is_symlink() for path in library.rglob("*"))
    assert (library / "large").read_bytes() == bytes(FRAME + 1)
    assert os.listdir(library / "folder") == ["file"]


async def _published(root: Path, offer: Offer) -> HostileAgent:
    (root / "target").mkdir(exist_ok=True)
    async with serving(root / "state", offer) as agent:
        await pull(options(root, agent.pairing), PullProgress())
        return agent
