"""Parts that several operations share: schemas, parameters, headers, failures, security."""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from shared.frames.codec import Encoding
from shared.plex.sqlite_check import DatabaseCheck
from shared.wire import protocol
from shared.wire.byte_range import UNIT

Json: TypeAlias = dict[str, Any]

_, SCHEMAS = msgspec.json.schema_components(
    [
        protocol.Health,
        protocol.LibraryReport,
        protocol.ServerReport,
        protocol.PullerEvent,
        protocol.CutoverRequest,
        protocol.CommitRequest,
        protocol.UndoRequest,
        protocol.CutoverStanding,
        protocol.SnapshotRequest,
        protocol.Snapshot,
        protocol.Problem,
    ],
    ref_template="#/components/schemas/{name}",
)

SECURITY_SCHEMES: Json = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "The token of the pairing."},
    "basic": {
        "type": "http",
        "scheme": "basic",
        "description": "The token of the pairing as the password, with any user name.",
    },
}

_DIGEST = "^sha-256=:[A-Za-z0-9+/]{43}=:$"
_HEADERS: dict[str, tuple[str, Json]] = {
    "ETag": ("Strong: equal tags, equal bytes.", {"pattern": '^"[!#-~]+"$'}),
    "Accept-Ranges": ("Ranges are served.", {"const": UNIT}),
    "Content-Range": ("Which bytes these are.", {"pattern": f"^{UNIT} [0-9]+-[0-9]+/[0-9]+$"}),
    "Content-Digest": ("Of the bytes sent (RFC 9530).", {"pattern": _DIGEST}),
    "Repr-Digest": ("Of the whole, once it is known (RFC 9530).", {"pattern": _DIGEST}),
    "Cache-Control": ("What caches may do.", {"enum": ["no-store", "private, no-cache"]}),
    protocol.CHANGED_PIECES: (
        "The body has only these pieces of 32 KiB of the block, a bit each.",
        {"pattern": "^[0-9a-f]{32}$"},
    ),
    "Location": ("Where it is.", {"format": "uri-reference", "pattern": "^/v1/"}),
    "Allow": ("The methods that there are.", {"pattern": "^[A-Z]+(,[A-Z]+)*$"}),
    "WWW-Authenticate": ("How to send the token.", {"pattern": "^Bearer .*, Basic "}),
}


def schema(body: type[msgspec.Struct]) -> Json:
    """A reference to the schema of a body."""
    return {"$ref": f"#/components/schemas/{body.__name__}"}


def headers(*always: str, maybe: tuple[str, ...] = ()) -> Json:
    """Return the headers of an answer: ``Cache-Control`` and ``always``, and perhaps ``maybe``."""
    always = ("Cache-Control", *always)
    return {
        name: {
            "description": _HEADERS[name][0],
            "required": name in always,
            "schema": {"type": "string"} | _HEADERS[name][1],
        }
        for name in (*always, *maybe)
    }


def failure(description: str, *names: str) -> Json:
    """A problem, with these headers."""
    content = {protocol.PROBLEM_TYPE: {"schema": schema(protocol.Problem)}}
    return {"description": description, "headers": headers(*names), "content": content}


UNSATISFIED: Json = {
    "description": "The whole has how many bytes.",
    "required": True,
    "schema": {"type": "string", "pattern": f"^{UNIT} \\*/[0-9]+$"},
}
"""``Content-Range`` of a 416."""

RESPONSES: Json = {
    "400": failure("The body or a parameter cannot be used."),
    "401": failure("The token is missing or not valid (any more).", "WWW-Authenticate"),
    "404": failure(f"There is none. `{protocol.NO_SUCH_SNAPSHOT}`: scan again."),
    "409": failure(
        f"`{protocol.SOURCE_CHANGED}`: the library is not as it was scanned; "
        f"`{protocol.SOURCE_UNREADABLE}`: something of it cannot be read; `paths` says where. "
        f"`{protocol.CUTOVER_ENDED}`: Plex was started again; "
        f"`{protocol.CUTOVER_REFUSED}`: it cannot be stopped, and `detail` says what to do."
    ),
    "408": failure("The body takes too long."),
    "413": failure(f"The body has more than {protocol.MAX_BODY} bytes."),
    "500": failure("The agent failed; its log says more."),
    "503": failure(
        "The library cannot be read, the state folder not written, or the agent is stopping."
    ),
    "507": failure(f"`{protocol.STORAGE}`: the agent's state folder fails or is full."),
}
"""Failures by status."""


def _header(name: str, description: str, **examples: str) -> Json:
    return {
        "name": name,
        "in": "header",
        "description": description,
        "schema": {"type": "string"},
        "examples": {key: {"value": value} for key, value in examples.items()},
    }


def _in_path(name: str, description: str, **what: Any) -> Json:  # noqa: ANN401 - a schema's words
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": description,
        "schema": what,
    }


PARAMETERS: Json = {
    "snapshot": _in_path("snapshot", "The snapshot's id.", type="string", pattern="^[0-9a-f]{64}$"),
    "cutover": _in_path("cutover", "The puller's own.", type="string", pattern="^[0-9a-f]{32}$"),
    "number": _in_path(
        "number", "The frame's number, from 0.", type="integer", minimum=0, maximum=10**12 - 1
    ),
    "suffix": _in_path(
        "suffix", "The encoding.", type="string", enum=[encoding.value for encoding in Encoding]
    ),
    "Range": _header(
        "Range",
        "One range of bytes. Several, and what is no range, are answered with the whole.",
        part="bytes=0-99",
        rest="bytes=100-",
        beyond="bytes=999999999999999-",
        end="bytes=-100",
    ),
    protocol.HELD_PIECES: _header(
        protocol.HELD_PIECES,
        "Of a block of a large file that the client has in an older version: the first 8 bytes of"
        " the SHA-256 of each piece of 32 KiB, base64. Pieces that have these are not sent."
        f" Or `{protocol.LATER}`: if the block is not the one in `If-None-Match`, answer 428.",
        one="AAAAAAAAAAA=",
    ),
    protocol.DATABASE_CHECK: {
        "name": protocol.DATABASE_CHECK,
        "in": "query",
        "description": "How much of Plex's databases is checked.",
        "schema": {
            "type": "string",
            "enum": [each.value for each in DatabaseCheck],
            "default": DatabaseCheck.FULL.value,
        },
    },
    protocol.IDENTIFY_CHECKS: {
        "name": protocol.IDENTIFY_CHECKS,
        "in": "query",
        "description": "Whether each check has its `id`. Pullers before 0.2 cannot read it.",
        "schema": {"type": "string", "enum": ["true", "false"], "default": "false"},
    },
    "If-Range": _header("If-Range", "The range if this is still the `ETag`, else the whole."),
    "If-Match": _header("If-Match", "412 if none of these is the `ETag`.", any="*", no='"other"'),
    "If-None-Match": _header(
        "If-None-Match", "304 if one of these is the `ETag`.", no='"other"', any="*"
    ),
    "Want-Repr-Digest": _header(
        "Want-Repr-Digest",
        "With `sha-256` in it, `Repr-Digest` is sent, however long it takes to make.",
        sha256="sha-256=1",
    ),
    "Resuming": _header(
        "Range", "With any, to the archive that this client began with.", rest="bytes=100-"
    ),
}
"""Parameters by name."""
