"""A range selects the same bytes as Python's slices, and an invalid range is ignored."""

from __future__ import annotations

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from agent.server.conditions import AskedRange, parse_range, resolve, select

_sizes = st.integers(0, 400)
_positions = st.one_of(st.integers(0, 450), st.integers(0, 10**1000 - 1))


def meant(header: str, size: int) -> bytes | None:
    """Return the bytes that ``header`` selects: None for the whole, empty for none."""
    asked = parse_range(header)
    if asked is None:
        return None
    found = resolve(asked, size)
    return b"" if found is None else content(size)[found.start : found.stop]


def content(size: int) -> bytes:
    """Return bytes of which neighbors, and those 256 apart, differ."""
    return bytes((number * 7 + number // 256) % 256 for number in range(size))


@given(_sizes, _positions, _positions)
def test_from_first_to_last(size: int, first: int, last: int) -> None:
    """Both ends are inclusive, a last byte past the end is cut, and a reversed range is invalid."""
    expected = None if last < first else content(size)[first : last + 1]
    assert meant(f"bytes={first}-{last}", size) == expected


@given(_sizes, _positions)
def test_open_ended(size: int, first: int) -> None:
    """An open-ended range selects everything from the first byte on."""
    assert meant(f"bytes={first}-", size) == content(size)[first:]


@given(_sizes, _positions)
def test_suffix(size: int, count: int) -> None:
    """A suffix selects so many last bytes, all if there are fewer, and none for -0."""
    expected = content(size)[-count:] if count else b""
    assert meant(f"bytes=-{count}", size) == expected


@given(_sizes, _positions, _positions, st.booleans())
def test_what_is_resolved_is_told(size: int, first: int, last: int, is_suffix: bool) -> None:  # noqa: FBT001 - drawn
    """``Content-Range`` of a 206 lies within the size, and requested again is the same range."""
    asked = AskedRange(None, last) if is_suffix else AskedRange(min(first, last), last)
    response = web.StreamResponse()
    if resolve(asked, size) is None:
        with pytest.raises(web.HTTPRequestRangeNotSatisfiable) as refused:
            select(response, asked, size)
        assert refused.value.headers["Content-Range"] == f"bytes */{size}"
        return
    found = select(response, asked, size)
    assert 0 <= found.start < found.stop <= size
    assert response.content_length == len(found)
    told = response.headers["Content-Range"]
    assert told == f"bytes {found.start}-{found.stop - 1}/{size}"
    again = parse_range(told.replace(" ", "=").partition("/")[0])
    assert again is not None
    assert resolve(again, size) == found


@given(st.text(max_size=30), st.text("0123456789-, =", max_size=12))
def test_any_text_is_a_range_or_ignored(unit: str, ranges: str) -> None:
    """For any header, nothing is raised, and an accepted range is valid."""
    for header in (unit, f"{unit}={ranges}", f"bytes={ranges}"):
        asked = parse_range(header)
        if asked is not None and asked.first is not None and asked.last is not None:
            assert asked.first <= asked.last


@pytest.mark.parametrize(
    "header",
    [
        "BYTES=1-2",
        "Bytes=1-2",
        "bytes= 1-2 ",
        "bytes=1-2,",
        "bytes=,1-2",
        "bytes=, ,1-2 , ",
        "bytes=01-0000000002",
        "bytes=\t1-2",
    ],
)
def test_other_ways_to_write_it(header: str) -> None:
    """The unit may have any case, and lists may have empty members (RFC 9110 section 5.6.1)."""
    assert parse_range(header) == AskedRange(1, 2)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "bytes",
        "bytes=",
        "bytes=,",
        "bytes=-",
        "bytes=--1",
        "bytes=1",
        "bytes=2-1",
        "bytes=1-2-3",
        "bytes=1 -2",
        "bytes=+1-2",
        "bytes=-+1",
        "bytes=0x1-0x2",
        "bytes=1_0-2_0",
        "bytes=\u0661-\u0662",
        "bytes=1.0-2",
        "bytes=a-b",
        "bytes:1-2",
        "bytes 1-2/3",
        "bytes=1-2,4-5",
        "bytes=0-0,-1",
        "bytes=1-2;4-5",
        "items=1-2",
        "none=1-2",
        "bytes=1-2\n3",
        "bytes=bytes=1-2",
        f"bytes={'9' * 1001}-",
        f"bytes=-{'9' * 5000}",
    ],
)
def test_what_is_ignored(header: str) -> None:
    """Other units, several ranges, invalid ranges and huge numbers are ignored."""
    assert parse_range(header) is None
