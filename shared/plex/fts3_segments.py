"""A check of the segments of FTS3 and FTS4 full-text indexes that needs no tokenizer.

``PRAGMA integrity_check`` treats the shadow tables of a full-text index as tables of blobs.
SQLite's own check of an index needs its tokenizer, which only Plex's build has. The format of the
blobs is public: https://sqlite.org/fts3.html, section 9 ("Shadow Tables" and "Data Structures").
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_VARINT_BYTES = 10


class _Damaged(Exception):
    """A segment is damaged; the message says how."""


class _Segment(NamedTuple):
    """A row of ``%_segdir``."""

    first: int
    last_leaf: int
    last: int
    root: object


def damaged_index(connection: Any, table: str) -> str:  # noqa: ANN401 - of whichever SQLite
    """Return a description of the damage to the full-text index of ``table``, or "" if sound.

    The shadow tables of ``table``, an FTS3 or FTS4 table, must exist.
    """
    name = _quoted(f"{table}_segdir")
    segments = connection.execute(
        # FTS4 may append the segment's size to end_block, which makes it text.
        "SELECT level, idx, start_block, leaves_end_block, CAST(end_block AS INTEGER), root"  # noqa: S608
        f" FROM {name} ORDER BY level, idx"
    ).fetchall()
    for level, number, first, last_leaf, last, root in segments:
        try:
            _check_segment(connection, table, _Segment(first, last_leaf, last, root))
        except _Damaged as error:
            return f"segment {number} of level {level}: {error}"
    return ""


def _check_segment(connection: Any, table: str, segment: _Segment) -> None:  # noqa: ANN401
    if not isinstance(segment.root, bytes) or not all(
        isinstance(number, int) for number in segment[:3]
    ):
        raise _Damaged("its record is damaged")
    if segment.first == 0:
        _check_terms(segment.root, 0, b"", is_leaf=True)
        return
    _check_interior(segment.root, segment)
    expected, term = segment.first, b""
    for number, block in _blocks(connection, table, segment):
        if number > segment.last_leaf:
            if block:  # FTS4 allocates blocks for interior nodes in advance
                _check_interior(block, segment)
            continue
        if number != expected or not isinstance(block, bytes):
            raise _Damaged(f"block {expected} is missing")
        term = _check_terms(block, 0, term, is_leaf=True)
        expected += 1
    if expected <= segment.last_leaf:
        raise _Damaged(f"block {expected} is missing")


def _blocks(connection: Any, table: str, segment: _Segment) -> Iterator[Any]:  # noqa: ANN401
    name = _quoted(table + "_segments")
    rows: Iterator[Any] = connection.execute(
        f"SELECT blockid, block FROM {name} WHERE blockid BETWEEN ? AND ?"  # noqa: S608 - quoted
        " ORDER BY blockid",
        (segment.first, max(segment.last, segment.last_leaf)),
    )
    return rows


def _check_interior(node: bytes, segment: _Segment) -> None:
    height, place = _varint(node, 0)
    child, place = _varint(node, place)
    if height == 0 or not segment.first <= child <= max(segment.last, segment.last_leaf):
        raise _Damaged("a node does not point to its children")
    _check_terms(node, place, b"", is_leaf=False)


def _check_terms(node: bytes, place: int, previous: bytes, *, is_leaf: bool) -> bytes:
    """Check the terms of a node, and in a leaf their document lists; return the last term.

    A leaf begins with its height, 0, which is parsed as the prefix length of its first term. In an
    interior node the first term has no prefix length.
    """
    term, is_first = b"", True
    while place < len(node) or (is_leaf and is_first):
        shared = 0
        if is_leaf or not is_first:
            shared, place = _varint(node, place)
        length, place = _varint(node, place)
        if length == 0 or shared > len(term) or place + length > len(node):
            raise _Damaged("a term is damaged")
        term = term[:shared] + node[place : place + length]
        place += length
        if term <= previous:
            raise _Damaged("its terms are out of order")
        previous, is_first = term, False
        if is_leaf:
            length, place = _varint(node, place)
            place += length
            if length == 0 or place > len(node) or node[place - 1] != 0:
                raise _Damaged("a document list is damaged")
    return term


def _varint(node: bytes, place: int) -> tuple[int, int]:
    """Return the number at ``place`` (7 bits a byte, low first) and the next field's offset."""
    value = 0
    for index in range(_VARINT_BYTES):
        if place + index >= len(node):
            break
        byte = node[place + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:  # noqa: PLR2004 - the top bit says that more follows
            return value, place + index + 1
    raise _Damaged("a number is cut off")


def _quoted(name: str) -> str:
    return '"{}"'.format(name.replace('"', '""'))
