"""Every route with all that it may answer."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from prometheus_client.exposition import CONTENT_TYPE_LATEST

from agent.openapi.components import RESPONSES, UNSATISFIED, failure, headers, schema
from shared.frames.codec import Encoding
from shared.wire import protocol

if TYPE_CHECKING:
    import msgspec

    from agent.openapi.components import Json

_SNAPSHOT = "{snapshot}"
_SUFFIX = "{suffix}"
_ALL = ("401", "500", "503", "507")
_NAMED = (*_ALL, "404")
_READ = (*_NAMED, "409")
_BODY = ("400", "408", "413")
_JSON = "application/json"
_TEXT = "text/plain; charset=utf-8"
_ENCODINGS: Json = {encoding.media_type: {} for encoding in Encoding}
_PARTIAL = ("Range", "If-Range", "If-Match", "If-None-Match")
_ONLY_GET = frozenset({"206", "416"})


def paths() -> Json:
    """The ``paths`` of the document."""
    found: Json = {
        protocol.HEALTHZ: _get("alive", "Whether the agent is alive", _health()),
        protocol.READYZ: _get("ready", "Whether it can do its work", _health()),
        protocol.OPENAPI: _get("openapi", "This document", _openapi()),
        protocol.METRICS: _get(
            "metrics",
            "What the agent has counted, for Prometheus",
            {"200": _body("Prometheus' text format.", {CONTENT_TYPE_LATEST: {}})}
            | _failures(*_ALL),
        ),
        protocol.LIBRARY: _get(
            "preflight",
            "What a preflight of the library finds",
            {"200": _body("The report.", {_JSON: {"schema": schema(protocol.LibraryReport)}})}
            | _failures(*_ALL, "400", "409"),
            protocol.DATABASE_CHECK,
            protocol.IDENTIFY_CHECKS,
        ),
        protocol.LIBRARY_SERVER: _get(
            "server",
            "What a preflight finds without a look at the whole tree",
            {"200": _body("The report.", {_JSON: {"schema": schema(protocol.ServerReport)}})}
            | _failures(*_ALL, "400", "409"),
            protocol.DATABASE_CHECK,
            protocol.IDENTIFY_CHECKS,
        ),
        protocol.PROBE: _get(
            "probe",
            "Random bytes, to measure the network by; close the connection after enough of them",
            {"200": _body("Bytes.", {"application/octet-stream": {}})} | _failures(*_ALL),
        ),
        protocol.LOG: _get(
            "log",
            "The migration log, as text or JSON lines",
            {
                "200": _body(
                    "A line for each event.",
                    {_TEXT: {}, protocol.LOG_LINES_TYPE: {}},
                )
            }
            | _failures(*_ALL),
        )
        | {
            "post": _with_body(
                _operation(
                    "tell",
                    "Add to the migration log what a puller has to tell",
                    {
                        "204": {"description": "It is written.", "headers": headers()},
                        **_failures(*_ALL, *_BODY),
                    },
                ),
                protocol.PullerEvent,
            )
        },
        **_cutover(),
        protocol.SNAPSHOTS: {"post": _scan()},
        protocol.snapshot_path(_SNAPSHOT): _get(
            "snapshot",
            "The snapshot as it was answered when it was made",
            {"200": _body("The snapshot.", {_JSON: {"schema": schema(protocol.Snapshot)}})}
            | _failures(*_NAMED),
        ),
        protocol.manifest_path(_SNAPSHOT): _get(
            "manifest",
            "All entries as lines of JSON, zstd",
            _partial({protocol.MANIFEST_TYPE: {}}, ("ETag", "Accept-Ranges")) | _failures(*_NAMED),
            *_PARTIAL,
        ),
        protocol.omitted_path(_SNAPSHOT): _get(
            "omitted",
            "What the scan left out, as lines of JSON, zstd",
            _partial({protocol.MANIFEST_TYPE: {}}, ("ETag", "Accept-Ranges")) | _failures(*_NAMED),
            *_PARTIAL,
        ),
        protocol.frame_path(_SNAPSHOT, "{number}", _SUFFIX): _get(
            "frame", "One frame", _frame(), "If-None-Match", protocol.HELD_PIECES
        ),
        protocol.archive_path(_SNAPSHOT, _SUFFIX): _get(
            "archive",
            "The whole as one archive, the same bytes each time",
            _partial(
                _ENCODINGS,
                ("ETag", "Accept-Ranges"),
                ("Content-Digest", "Repr-Digest"),
            )
            | _failures(*_READ),
            *_PARTIAL,
            "Want-Repr-Digest",
        ),
        protocol.sums_path(_SNAPSHOT): _get(
            "sums",
            "The digest of each file, as the agent read it, for sha256sum -c",
            {"200": _body("A line for each file.", {_TEXT: {}})} | _failures(*_READ),
        ),
        protocol.check_path(_SNAPSHOT): {
            "post": _operation(
                "check",
                "Whether the library is still as it was scanned",
                {"204": {"description": "Every entry is.", "headers": headers()}}
                | _failures(*_READ),
            )
        },
        protocol.LIBRARY_ARCHIVE: _get(
            "library",
            "To the .tar.gz of the library as it is now",
            _elsewhere(),
            "Resuming",
        ),
        protocol.LIBRARY_SUMS: _get(
            "librarySums",
            "To the digests of the files in the archive that this client was sent to",
            _elsewhere(),
        ),
    }
    for path, item in found.items():
        if names := re.findall(r"{(\w+)}", path):
            item["parameters"] = [_parameter(name) for name in names]
    for path in (protocol.HEALTHZ, protocol.READYZ):
        for operation in found[path].values():
            operation["security"] = []
    found[protocol.SNAPSHOTS]["post"]["responses"]["201"]["links"] = _links(found)
    return found


def _get(name: str, summary: str, responses: Json, *parameters: str) -> Json:
    """A path that is answered to GET, and to HEAD with the same headers."""
    bare = {
        status: _failure(status, with_body=False) if "$ref" in answer else _without_body(answer)
        for status, answer in responses.items()
        if status not in _ONLY_GET
    }
    heard = [parameter for parameter in parameters if parameter not in {"Range", "If-Range"}]
    return {
        "get": _operation(name, summary, responses, *parameters),
        "head": _operation(f"{name}Head", f"{summary}: the headers", bare, *heard),
    }


def _operation(name: str, summary: str, responses: Json, *parameters: str) -> Json:
    heard = {"parameters": [_parameter(name) for name in parameters]} if parameters else {}
    return {
        "operationId": name,
        "summary": summary,
        **heard,
        "responses": dict(sorted(responses.items())),
    }


def _parameter(name: str) -> Json:
    return {"$ref": f"#/components/parameters/{name}"}


def _failure(status: str, *, with_body: bool = True) -> Json:
    if with_body:
        return {"$ref": f"#/components/responses/{status}"}
    return _without_body(RESPONSES[status])


def _failures(*statuses: str) -> Json:
    return {status: _failure(status) for status in statuses}


def _without_body(answer: Json) -> Json:
    return {key: value for key, value in answer.items() if key != "content"}


def _body(description: str, content: Json, names: Json | None = None) -> Json:
    return {"description": description, "headers": names or headers(), "content": content}


def _health() -> Json:
    return {
        "200": _body("It is.", {_JSON: {"schema": schema(protocol.Health)}}),
        **_failures("500", "503"),
    }


def _openapi() -> Json:
    document = {"type": "object", "required": ["openapi", "info", "paths", "components"]}
    return {"200": _body("OpenAPI 3.1.", {_JSON: {"schema": document}}), **_failures(*_ALL)}


def _scan() -> Json:
    operation = _operation(
        "scan",
        "Scan the library, or join the scan that is under way",
        {
            "201": _body(
                "The snapshot, which may have been there before.",
                {_JSON: {"schema": schema(protocol.Snapshot)}},
                headers("Location"),
            ),
            **_failures(*_NAMED, *_BODY, "409"),
        },
    )
    return _with_body(operation, protocol.SnapshotRequest)


def _with_body(operation: Json, kind: type[msgspec.Struct], *, required: bool = True) -> Json:
    """Return ``operation`` with a JSON body of this ``kind``."""
    body = {
        "required": required,
        "description": "Read as JSON, whatever its Content-Type.",
        "content": {_JSON: {"schema": schema(kind)}},
    }
    return operation | {"requestBody": body}


def _cutover() -> Json:
    name, answers = "{cutover}", "Where the cutover stands."
    standing = {_JSON: {"schema": schema(protocol.CutoverStanding)}}
    failures, named = _failures(*_ALL, *_BODY, "409"), _failures(*_READ)
    done = {"200": _body(answers, standing)}
    begun = {"201": _body("Plex has stopped.", standing, headers("Location"))} | failures
    begun |= _failures("404")
    stop = _operation("stop", "Stop Plex, and keep it stopped as long as the lease holds", begun)
    undo = _operation("undo", "Start Plex again, if it ran before", done | failures | named)
    commit = _operation("commit", "Keep Plex stopped for good", done | failures | named)
    return {
        protocol.CUTOVER: _get("cutover", answers, done | _failures(*_ALL))
        | {"post": _with_body(stop, protocol.CutoverRequest)},
        protocol.cutover_path(name): {
            "delete": _with_body(undo, protocol.UndoRequest, required=False)
        },
        protocol.lease_path(name): {"put": _operation("renew", "Renew the lease", done | named)},
        protocol.commit_path(name): {"put": _with_body(commit, protocol.CommitRequest)},
    }


def _links(found: Json) -> Json:
    """From a new snapshot to all that is below it."""
    return {
        operation["operationId"]: {
            "operationId": operation["operationId"],
            "parameters": {"snapshot": "$response.body#/id"},
        }
        for path, item in found.items()
        for method, operation in item.items()
        if _SNAPSHOT in path and method in {"get", "post"}
    }


def _frame() -> Json:
    return {
        "200": _body(
            "The frame. `ETag` is its digest, of what is in its files, in any encoding.",
            _ENCODINGS,
            headers("ETag", maybe=("Content-Digest", protocol.CHANGED_PIECES)),
        ),
        "304": {"description": "The client has it.", "headers": headers("ETag")},
        "428": failure(f"The block has changed, and `{protocol.HELD_PIECES}` was put off."),
        **_failures(*_READ),
    }


def _partial(content: Json, named: tuple[str, ...], maybe: tuple[str, ...] = ()) -> Json:
    """Return the responses of a resource that is served in ranges (RFC 9110 sections 13, 14)."""
    beyond = failure("Nothing is in this range.", *named)
    beyond["headers"]["Content-Range"] = UNSATISFIED
    return {
        "200": _body("All of it.", content, headers(*named, maybe=maybe)),
        "206": _body("The range.", content, headers(*named, "Content-Range", maybe=maybe)),
        "304": {"description": "The client has it.", "headers": headers(*named)},
        "412": failure("It is not what `If-Match` names.", *named),
        "416": beyond,
    }


def _elsewhere() -> Json:
    return {
        "307": _body("There.", {_TEXT: {}}, headers("Location")),
        **_failures(*_READ),
    }
