"""Conditions, ranges, and the digests that a client requests (RFC 9110 sections 13, 14; RFC 9530).

Nothing here has a modification date, so conditions with dates are ignored, as sections 13.1.3 and
13.1.4 ask. aiohttp's parsers read only the first line of a field, and ``bytes=-0`` as the whole.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from aiohttp import hdrs, web

_UNIT = "bytes"
_INT_RANGE = re.compile(r"([0-9]{1,1000})-([0-9]{1,1000})?")
_SUFFIX_RANGE = re.compile(r"-([0-9]{1,1000})")
_ANY = "*"
_ENTITY_TAG = re.compile(r'(W/)?"([\x21\x23-\x7e\x80-\U0010ffff]*)"')
_WANTS_SHA_256 = re.compile(r"(?:^|,)\s*sha-256\s*=\s*(?:[1-9]|10)\s*(?:$|[,;])")


class AskedRange(NamedTuple):
    """The range that a client requests, before the content's length is known."""

    first: int | None
    """Position of the first byte; None if :attr:`last` counts bytes from the end."""
    last: int | None
    """Position of the last byte, inclusive; None for everything after :attr:`first`."""


def begin(request: web.Request, tag: str) -> web.StreamResponse:
    """Return the response for content with the strong entity-tag ``tag``, without the quotes.

    Raises:
        HTTPPreconditionFailed, HTTPNotModified: a condition of the request demands it. The order
            is that of RFC 9110 section 13.2.2.
    """
    headers: dict[str, str] = {
        hdrs.ETAG: f'"{tag}"',
        hdrs.ACCEPT_RANGES: _UNIT,
        hdrs.CACHE_CONTROL: "private, no-cache",
    }
    wanted = _tags(request, hdrs.IF_MATCH)
    if wanted is not None and not wanted & {_ANY, f'"{tag}"'}:
        reason = "it is not what If-Match names (any more)"
        raise web.HTTPPreconditionFailed(headers=headers, reason=reason)
    if is_known(request, tag):
        raise web.HTTPNotModified(headers=headers)
    return web.StreamResponse(headers=headers)


def is_known(request: web.Request, tag: str) -> bool:
    """Return whether ``If-None-Match`` has ``tag``; weak comparison (section 8.8.3.2)."""
    known = _tags(request, hdrs.IF_NONE_MATCH)
    return known is not None and bool(known & {_ANY, f'"{tag}"', f'W/"{tag}"'})


def asked_range(request: web.Request, tag: str) -> AskedRange | None:
    """Return the range to send, None for the whole.

    ``If-Range`` takes a strong entity-tag, compared strongly (section 13.1.5). With anything else
    in it, also a date, the whole is sent.
    """
    header = ",".join(request.headers.getall(hdrs.RANGE, []))
    if not header or request.method != hdrs.METH_GET:
        return None
    condition = ",".join(request.headers.getall(hdrs.IF_RANGE, []))
    if hdrs.IF_RANGE in request.headers and condition.strip() != f'"{tag}"':
        return None
    return parse_range(header)


def parse_range(header: str) -> AskedRange | None:
    """Return the single range in ``header``; None if the header must be ignored.

    Other units, several ranges and malformed ranges are ignored (section 14.2).
    """
    unit, _, ranges = header.partition("=")
    if unit.strip().lower() != _UNIT:
        return None
    specs = [spec.strip() for spec in ranges.split(",") if spec.strip()]
    if len(specs) != 1:
        return None
    if found := _SUFFIX_RANGE.fullmatch(specs[0]):
        return AskedRange(None, int(found[1]))
    if (found := _INT_RANGE.fullmatch(specs[0])) is None:
        return None
    first, last = int(found[1]), int(found[2]) if found[2] else None
    if last is not None and last < first:
        return None
    return AskedRange(first, last)


def resolve(asked: AskedRange, size: int) -> range | None:
    """Return the positions that ``asked`` selects of ``size`` bytes; None if it selects none."""
    if asked.first is None:
        found = range(max(0, size - (asked.last or 0)), size)
    else:
        stop = size if asked.last is None else min(asked.last + 1, size)
        found = range(asked.first, stop)
    return found if len(found) > 0 else None


def select(response: web.StreamResponse, asked: AskedRange | None, size: int) -> range:
    """Return which of ``size`` bytes to send, and give ``response`` their length and range.

    Raises:
        HTTPRequestRangeNotSatisfiable: no byte is in the range (section 15.5.17).
    """
    part = range(size)
    if asked is not None:
        found = resolve(asked, size)
        if found is None:
            headers = {**response.headers, hdrs.CONTENT_RANGE: f"{_UNIT} */{size}"}
            reason = "there is nothing in this range"
            raise web.HTTPRequestRangeNotSatisfiable(headers=headers, reason=reason)
        part = found
        response.set_status(206)
        response.headers[hdrs.CONTENT_RANGE] = f"{_UNIT} {part.start}-{part.stop - 1}/{size}"
    response.content_length = len(part)
    return part


def wants_digest(request: web.Request) -> bool:
    """Return whether the client asks for the digest of the whole, which may take a while."""
    wanted = ",".join(request.headers.getall("Want-Repr-Digest", []))
    return _WANTS_SHA_256.search(wanted) is not None


def _tags(request: web.Request, name: str) -> set[str] | None:
    """Return the entity-tags of a list field as they are written, or ``*``; None without it."""
    if name not in request.headers:
        return None
    value = ",".join(request.headers.getall(name))
    if value.strip() == _ANY:
        return {_ANY}
    return {found[0] for found in _ENTITY_TAG.finditer(value)}
