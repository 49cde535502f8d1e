"""Conditions, ranges, and the digests that a client requests (RFC 9110 sections 13, 14; RFC 9530).

Nothing here has a modification date, so conditions with dates never hold and never hinder, as
sections 13.1.3 and 13.1.4 ask.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from aiohttp import hdrs, web

from agent.server.problems import problem
from shared.wire.byte_range import AskedRange, parse_range, unsatisfied_range

if TYPE_CHECKING:
    from collections.abc import Mapping

_ANY = "*"
_ENTITY_TAG = re.compile(r'(W/)?"([\x21\x23-\x7e\x80-\U0010ffff]*)"')
_WANTS_SHA_256 = re.compile(r"(?:^|,)\s*sha-256\s*=\s*(?:[1-9]|10)\s*(?:$|[,;])")


def refused(request: web.Request, tag: str, headers: Mapping[str, str]) -> web.Response | None:
    """412 or 304 if the request's conditions say so, in the order of RFC 9110 section 13.2.2.

    Args:
        request: a GET or HEAD of something that exists.
        tag: the opaque part of its strong entity-tag.
        headers: what a 304 repeats.
    """
    wanted = _tags(request, hdrs.IF_MATCH)
    if wanted is not None and _ANY not in wanted and f'"{tag}"' not in wanted:
        answer = problem(412, "it is not what If-Match names (any more)")
        answer.headers.update(headers)
        return answer
    if is_known(request, tag):
        return web.Response(status=304, headers=headers)
    return None


def is_known(request: web.Request, tag: str) -> bool:
    """Whether ``If-None-Match`` names what would be sent; weak comparison (section 8.8.3.2)."""
    known = _tags(request, hdrs.IF_NONE_MATCH)
    return known is not None and bool(known & {_ANY, f'"{tag}"', f'W/"{tag}"'})


def asked_range(request: web.Request, tag: str) -> AskedRange | None:
    """The range that is to be answered, None for the whole.

    ``If-Range`` takes a strong entity-tag, compared strongly (section 13.1.5): anything else in
    it, a date too, makes the answer whole.
    """
    header = ",".join(request.headers.getall(hdrs.RANGE, []))
    if not header or request.method != hdrs.METH_GET:
        return None
    condition = ",".join(request.headers.getall(hdrs.IF_RANGE, []))
    if hdrs.IF_RANGE in request.headers and condition.strip() != f'"{tag}"':
        return None
    return parse_range(header)


def unsatisfiable(size: int, headers: Mapping[str, str]) -> web.Response:
    """416 for a range that has none of the ``size`` bytes (RFC 9110 section 15.5.17)."""
    answer = problem(416, "there is nothing in this range")
    answer.headers.update(headers)
    answer.headers[hdrs.CONTENT_RANGE] = unsatisfied_range(size)
    return answer


def wants_digest(request: web.Request) -> bool:
    """Whether the client asks for the digest of the whole, though it may take a while."""
    return (
        _WANTS_SHA_256.search(",".join(request.headers.getall("Want-Repr-Digest", []))) is not None
    )


def _tags(request: web.Request, name: str) -> set[str] | None:
    """The entity-tags of a list field as they are written, or ``*``; None without the field."""
    if name not in request.headers:
        return None
    value = ",".join(request.headers.getall(name))
    if value.strip() == _ANY:
        return {_ANY}
    return {found[0] for found in _ENTITY_TAG.finditer(value)}
