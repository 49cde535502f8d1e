"""Only changed pieces of a block are sent, and nothing but the right block results."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rig.hostile.agent import Offer, Reply, entry, folder, offer_tree, refused

from shared import errors
from shared.frames.pieces import (
    PIECE,
    changed_pieces,
    format_pieces,
    piece_digests,
    places,
    shortened,
)
from shared.frames.plan import FRAME

if TYPE_CHECKING:
    from pathlib import Path

_lengths = st.integers(0, 5 * PIECE) | st.sampled_from([0, 1, PIECE, PIECE + 1, FRAME])


def patched(old: bytes, new: bytes) -> tuple[bytes, int]:
    """Return the block that the holder of ``old`` makes, and the number of bytes sent."""
    digests = piece_digests(new)
    found = changed_pieces(new, shortened(digests), format_pieces(piece_digests(old)))
    assert found is not None
    bitmap, sent = found
    where = places(bitmap, len(new))
    assert where is not None
    made, position = bytearray(old[: len(new)].ljust(len(new), b"\0")), 0
    for offset, length in where:
        made[offset : offset + length] = sent[position : position + length]
        position += length
    assert position == len(sent)
    return bytes(made), len(sent)


@given(_lengths, _lengths, st.lists(st.integers(0, FRAME), max_size=8), st.integers(0, 99))
def test_block_is_renewed(before: int, after: int, written: list[int], seed: int) -> None:
    """A block is renewed after any write and any change of length."""
    old = random.Random(seed).randbytes(before)  # noqa: S311 - reproducible
    new = bytearray(old[:after].ljust(after, b"n"))
    for place in written:
        if after:
            new[place % after] ^= 0xFF
    assert patched(old, bytes(new))[0] == bytes(new)


def test_one_page_costs_one_piece() -> None:
    """One changed page of a block of 128 pieces costs one piece."""
    old = random.Random(1).randbytes(FRAME)  # noqa: S311 - reproducible
    new = bytearray(old)
    new[77 * 4096] ^= 1
    assert patched(old, bytes(new)) == (bytes(new), PIECE)
    assert patched(old, old) == (old, 0)


@pytest.mark.parametrize("known", ["", "x", "AAAA", "A" * 20_000, "\xff", "=" * 8])
def test_invalid_digests_have_the_whole_block_sent(known: str) -> None:
    """An invalid list of digests has the whole block sent."""
    found = changed_pieces(b"content", shortened(piece_digests(b"content")), known)
    assert found is None or found[1] == b"content"


@pytest.mark.parametrize("bitmap", ["", "00", "zz" * 16, "ff" * 16, "00" * 15 + "80", "00" * 17])
def test_invalid_bitmap_is_refused(bitmap: str) -> None:
    """An invalid bitmap for a block of two pieces is refused."""
    assert places(bitmap, PIECE + 1) is None


async def test_unrequested_pieces_are_refused(tmp_path: Path) -> None:
    """A part sent in place of the whole is refused."""
    large = entry(b"Library/large", size=FRAME + 1)
    offer: Offer = offer_tree([folder(b"Library"), large])
    for replies in offer.frames:
        replies[:] = [
            Reply(each.body, headers=each.headers | {"Plexodus-Changed-Pieces": "00" * 16})
            for each in replies
        ]
    await refused(tmp_path, offer, errors.ProtocolViolation)
