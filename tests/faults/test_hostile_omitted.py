"""A hostile agent's list of omitted entries: each lie is refused with an error of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from rig.hostile.agent import Reply, folder, offer_tree, packed, refused
from rig.hostile.bombs import zstd_bomb

from shared import errors
from shared.tree.omitted import MAX_LINE, Omitted, Reason, format_omitted

if TYPE_CHECKING:
    from pathlib import Path

    from rig.hostile.agent import HostileAgent, Offer

TOP = folder(b"Library")
GOOD = Omitted(b"Library/plex.pid", Reason.EXCLUDED, 4)
GOOD_LINE = format_omitted(GOOD)


def omitted(path: bytes) -> Omitted:
    """Return a record of an excluded entry."""
    return Omitted(path, Reason.EXCLUDED, 1)


async def refused_before_frames(
    tmp_path: Path,
    offer: Offer,
    kind: type[errors.PlexodusError],
) -> HostileAgent:
    """Pull what is offered: it ends with ``kind`` before a frame is asked for."""
    agent = await refused(tmp_path, offer, kind)
    assert not [each for each in agent.requests if "frames" in each]
    return agent


RECORDS = {
    "dot_dot": ([omitted(b"Library/../escaped")], errors.IllegalPath),
    "dot": ([omitted(b"Library/./file")], errors.IllegalPath),
    "absolute": ([omitted(b"/etc/passwd")], errors.IllegalPath),
    "another_root": ([omitted(b"Other/file")], errors.IllegalPath),
    "empty_name": ([omitted(b"Library//file")], errors.IllegalPath),
    "nul": ([omitted(b"Library/fi\0le")], errors.IllegalPath),
    "no_path": ([omitted(b"")], errors.IllegalPath),
    "path_too_long": ([omitted(b"Library" + b"/name" * 4000)], errors.IllegalPath),
    "twice": ([GOOD, GOOD], errors.EntriesOutOfOrder),
    "out_of_order": ([omitted(b"Library/b"), omitted(b"Library/a")], errors.EntriesOutOfOrder),
    "below_comes_first": (
        [omitted(b"Library/a.b"), omitted(b"Library/a/b")],
        errors.EntriesOutOfOrder,
    ),
    "xattr_without_a_name": ([Omitted(b"Library/a", Reason.XATTR)], errors.OmittedListMalformed),
    "fifo_with_an_xattr": (
        [Omitted(b"Library/a", Reason.FIFO, xattr=b"user.a")],
        errors.OmittedListMalformed,
    ),
    "negative_size": ([Omitted(b"Library/a", Reason.EXCLUDED, -1)], errors.OmittedListMalformed),
}


@pytest.mark.parametrize(("records", "kind"), RECORDS.values(), ids=RECORDS.keys())
async def test_impossible_omitted_record_is_refused(
    tmp_path: Path, records: list[Omitted], kind: type[errors.PlexodusError]
) -> None:
    """Paths outside the library, contradictions and disorder are refused; nothing is touched."""
    offer = offer_tree([TOP])
    offer.omit(*records)
    await refused_before_frames(tmp_path, offer, kind)


FILES = {
    "no_zstd": (GOOD_LINE, errors.OmittedListMalformed),
    "empty": (b"", errors.OmittedListWrong),
    "cut_off": (packed(GOOD_LINE)[:-3], errors.OmittedListMalformed),
    "not_json": (packed(b"{\n"), errors.OmittedListMalformed),
    "unknown_reason": (
        packed(GOOD_LINE.replace(b"excluded", b"forgotten")),
        errors.OmittedListMalformed,
    ),
    "unknown_field": (packed(GOOD_LINE[:-2] + b',"x":1}\n'), errors.OmittedListMalformed),
    "empty_line": (packed(GOOD_LINE + b"\n"), errors.OmittedListMalformed),
    "no_newline": (packed(GOOD_LINE.strip()), errors.OmittedListMalformed),
    "empty_pieces": (packed(GOOD_LINE) + packed(b""), errors.OmittedListMalformed),
    "line_too_long": (
        packed(b" " * MAX_LINE + GOOD_LINE),
        errors.OmittedListTooLarge,
    ),
    "bomb": (zstd_bomb(1 << 30, 1 << 30), errors.OmittedListTooLarge),
    "bomb_without_a_size": (zstd_bomb(1 << 30, None), errors.OmittedListTooLarge),
    "more_than_announced": (packed(GOOD_LINE * 2), errors.EntriesOutOfOrder),
}


@pytest.mark.parametrize(("content", "kind"), FILES.values(), ids=FILES.keys())
async def test_invalid_omitted_list_is_refused(
    tmp_path: Path, content: bytes, kind: type[errors.PlexodusError]
) -> None:
    """A file with the announced digest that no agent writes is refused."""
    offer = offer_tree([TOP])
    offer.omit(GOOD, packed_list=content)
    await refused_before_frames(tmp_path, offer, kind)


ANNOUNCED = {
    "another_digest": ({"sha256": "0" * 64}, errors.OmittedListWrong),
    "more_excluded": ({"excluded": 2}, errors.OmittedListWrong),
    "fewer_excluded": ({"excluded": 0}, errors.OmittedListWrong),
    "skipped_instead": ({"excluded": 0, "skipped": 1}, errors.OmittedListWrong),
    "fewer_bytes": ({"bytes": 3}, errors.OmittedListTooLarge),
    "bytes_past_any_limit": ({"bytes": 2**61}, errors.OmittedListTooLarge),
    "negative_count": ({"excluded": -1}, errors.ProtocolViolation),
    "no_digest": ({"sha256": "x"}, errors.ProtocolViolation),
}


@pytest.mark.parametrize(("lie", "kind"), ANNOUNCED.values(), ids=ANNOUNCED.keys())
async def test_omitted_list_with_another_digest_is_refused(
    tmp_path: Path, lie: dict[str, Any], kind: type[errors.PlexodusError]
) -> None:
    """Counts, length and digest must be those of the snapshot."""
    offer = offer_tree([TOP])
    offer.omit(GOOD)
    offer.snapshot["omitted"] |= lie
    await refused_before_frames(tmp_path, offer, kind)


async def test_endless_omitted_list_is_cut_off(tmp_path: Path) -> None:
    """The download is cut off as soon as it is longer than announced."""
    offer = offer_tree([TOP])
    offer.omit(GOOD)
    offer.omitted = [Reply(offer.omitted[0].body, endless=True)]
    await refused_before_frames(tmp_path, offer, errors.OmittedListTooLarge)


async def test_agent_of_an_older_release(tmp_path: Path) -> None:
    """An agent that announces no list is refused: the receipt could not name what was left out."""
    offer = offer_tree([TOP])
    del offer.snapshot["omitted"]
    offer.snapshot |= {"excluded": ["Library/plex.pid (4 bytes)"], "skipped": []}
    await refused_before_frames(tmp_path, offer, errors.ProtocolViolation)
