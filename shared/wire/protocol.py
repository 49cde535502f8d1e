"""Routes, field names and bodies of the HTTP interface (docs/protocol.md)."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from shared.checks import Check

HEALTHZ = "/healthz"
READYZ = "/readyz"
METRICS = "/metrics"
LIBRARY = "/v1/library"
LIBRARY_SERVER = "/v1/library/server"
DATABASE_CHECK = "database-check"
"""Query parameter of both: how much of the databases is checked (shared.plex.sqlite_check)."""
IDENTIFY_CHECKS = "identify-checks"
"""Query parameter of both: ``true`` adds ``id`` to each check. Pullers before 0.2 refuse a check
with an unknown field, so the agent adds it on request only."""
PROBE = "/v1/probe"
LOG = "/v1/log"
CUTOVER = "/v1/cutover"
SNAPSHOTS = "/v1/snapshots"
LIBRARY_ARCHIVE = "/plex-library.tar.gz"
LIBRARY_SUMS = "/SHA256SUMS"
TARGET_CHECKS = "/v1/checks"
EVENTS = "/v1/events"
PAGE, PAGE_STYLE, PAGE_SCRIPT = "/", "/page.css", "/page.js"
SIGN_IN, SIGN_OUT, PAGE_UNDO = "/sign-in", "/sign-out", "/undo"
OPENAPI = "/openapi.json"
PROBLEM_TYPE = "application/problem+json"
LOG_LINES_TYPE = "application/jsonl"
MANIFEST_TYPE = "application/zstd"
"""Of a manifest, and of the list of omitted entries: lines of JSON, zstd."""
PREFER, PROCESSING = "Prefer", "processing"
"""The request field and its value (RFC 7240) that ask for ``102`` while a response takes long."""
HELD_PIECES, CHANGED_PIECES = "Plexodus-Held-Pieces", "Plexodus-Changed-Pieces"
"""Fields of a request and its response about pieces of a block, see shared.frames.pieces."""
LATER = "later"
"""Sent instead of the pieces' digests, because most blocks have not changed. The agent requests the
digests of one that has with 428 (RFC 6585 section 3)."""
WANT_CONTENT_DIGEST, NO_DIGEST = "Want-Content-Digest", "sha-256=0"
"""The request field and its value (RFC 9530 section 4) that save the hash of a body."""
MAX_ABOUT = 1000
"""Most characters of one event that a puller adds to the migration log."""
MAX_BODY = 64 * 1024
"""Most bytes of a request body that the agent reads."""
MAX_ANSWER = 16 * 1024 * 1024
"""Most bytes of a JSON response that the puller reads."""

Count = Annotated[int, msgspec.Meta(ge=0, lt=2**62)]
Kind = Literal["live", "rehearsal", "cold"]
"""Kind of a snapshot. Live: Plex runs, and files may change. Rehearsal: the same, with consistent
copies of the databases. Cold: Plex is stopped, and nothing may change."""
Seconds = Annotated[float, msgspec.Meta(ge=0)]
Text = Annotated[str, msgspec.Meta(max_length=1000)]
Code = Annotated[int, msgspec.Meta(ge=0, le=255)]
Circumstances = Annotated[dict[Text, Text], msgspec.Meta(max_length=16)]
CutoverName = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]
CutoverPhase = Literal["idle", "stopping", "stopped", "committing", "committed", "undoing"]
"""State of Plex on the VM; see docs/cutover.md."""


class Health(msgspec.Struct):
    """Response to `GET /healthz` and `GET /readyz` when all is well."""

    status: Literal["ok", "ready"]


class SnapshotRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /v1/snapshots`."""

    kind: Kind
    exclude: Annotated[list[str], msgspec.Meta(max_length=1000)] = []
    base: Annotated[str, msgspec.Meta(pattern="^(|[0-9a-f]{64})$")] = ""
    """A snapshot of which the puller has all frames. Entries that are as in it are marked as kept,
    and are in no frame."""
    placed: bool = False
    """Put a library called `Plex Media Server` where Plex's image expects it: below the folders
    `Library` and `Application Support`, with its own attributes."""


class Library(msgspec.Struct):
    """The library that was scanned."""

    id: str
    """Equal for one folder of one machine, whatever is in it, and for one Plex server's library
    after a move on that machine."""
    name: str
    """The name under which it arrives: the last one of its path, or `Library` if it was placed."""
    host: str
    path: str


class OmittedList(msgspec.Struct, frozen=True):
    """The entries that a scan left out, and the file with a record for each."""

    excluded: Count
    """Records of entries that the patterns of `exclude` matched."""
    skipped: Count
    """Records of FIFOs, sockets, devices and unusable xattrs."""
    bytes: Count
    """Bytes of the file as it is sent."""
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    """Digest of the file as it is sent, hexadecimal."""


class Snapshot(msgspec.Struct):
    """Response to `POST /v1/snapshots` and `GET /v1/snapshots/{id}`."""

    id: str
    """SHA-256 of the manifest's lines, hexadecimal."""
    kind: Kind
    library: Library
    created: str
    """When the scan began: RFC 3339, UTC."""
    entries: Count
    files: Count
    content_bytes: Count
    frames: Count
    manifest_bytes: Count
    """Bytes of the manifest as it is sent."""
    exclude: list[str]
    base: str = ""
    """The snapshot that it is a delta to, if any."""
    omitted: OmittedList | None = None
    """What the scan left out. None if an older release made this snapshot."""


class MediaFolder(msgspec.Struct, frozen=True):
    """A folder in which a library of Plex has its media."""

    section: str
    """The library's name in Plex."""
    path: str


class ServerReport(msgspec.Struct, frozen=True):
    """Response to `GET /v1/library/server`: results of the checks that need no walk of the tree."""

    library: Library
    plex_version: str | None
    media: list[MediaFolder]
    checks: list[Check]


class LibraryReport(ServerReport, frozen=True):
    """Response to `GET /v1/library`: results of all checks of the source, and its size."""

    entries: Count
    content_bytes: Count
    read_seconds: Seconds
    """Estimated time to read all of it, from a sample."""


class PullerEvent(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /v1/log`: what the puller adds to the migration log."""

    event: Annotated[str, msgspec.Meta(pattern="^[a-z]{1,40}$")]
    about: Annotated[str, msgspec.Meta(max_length=MAX_ABOUT)]


class TargetChecks(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `PUT /v1/checks`: results of the checks of the volume."""

    checks: Annotated[list[Check], msgspec.Meta(max_length=100)]
    are_all: bool = False
    """Whether these are all checks of a preflight, so that earlier results are void."""


class StopFailure(msgspec.Struct, frozen=True):
    """A failure while Plex was stopped. A retry fails in the same way unless something changes."""

    code: Code
    """Exit code of the pull."""
    what: Text
    hint: Text
    at: Text
    """When it happened: RFC 3339, UTC."""
    circumstances: Circumstances
    """What the failure depends on, by name: the puller's version, its options, the volume, …"""
    available: Count = 0
    """Bytes that the volume had available, if it was full; otherwise 0."""


class CutoverRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /v1/cutover`: stop Plex, and keep it stopped for this puller."""

    id: CutoverName
    """Chosen by the puller, which can repeat the request when a response was lost."""
    puller: Annotated[str, msgspec.Meta(max_length=300)]
    """The puller's name, for people."""
    max_seconds: Seconds = 0.0
    """Most seconds that Plex stays stopped, however often the lease is renewed; 0: no limit."""
    circumstances: Circumstances = {}
    """As in a :class:`StopFailure`. If they equal those of the last one, Plex is not stopped."""
    retry: bool = False
    """Stop Plex in spite of an earlier failure or a pause."""


class UndoRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Optional body of `DELETE /v1/cutover/{id}`."""

    failure: StopFailure | None = None
    """The reason, if a retry would fail in the same way."""


class CommitRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `PUT /v1/cutover/{id}/commit`: keep Plex stopped for good."""

    snapshot: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    """The snapshot that the puller has verified, and is about to publish."""


class CutoverStanding(msgspec.Struct, frozen=True):
    """Response to all of `/v1/cutover`: the state of the cutover."""

    phase: CutoverPhase
    id: str
    """The cutover's; while idle, the last one's."""
    puller: str
    since: str
    """When the phase began: RFC 3339, UTC."""
    seconds: Seconds
    """Seconds until the lease ends, unless it is renewed."""
    snapshot: str
    """The committed snapshot."""
    why: str
    """Why the last cutover ended, while idle or undoing."""
    failure: StopFailure | None = None
    """What must change before Plex is stopped again."""
    stops: Count = 0
    """How often Plex was stopped in a row without a commit."""
    pause: Seconds = 0.0
    """Seconds that have to pass before Plex is stopped again."""
    agent: str = ""
    """The agent's version and settings, as one of the circumstances of a failure."""


class Problem(msgspec.Struct):
    """A failure (RFC 9457). `type` is `about:blank` or one of the `urn:plexodus:` names."""

    type: str
    title: str
    status: int
    detail: str = ""
    paths: list[str] = []
    """The paths that the failure is about, if any."""


SOURCE_CHANGED = "urn:plexodus:source-changed"
SOURCE_UNREADABLE = "urn:plexodus:source-unreadable"
NO_SUCH_SNAPSHOT = "urn:plexodus:no-such-snapshot"
CUTOVER_ENDED = "urn:plexodus:cutover-ended"
CUTOVER_REFUSED = "urn:plexodus:cutover-refused"
STORAGE = "urn:plexodus:storage"
ABOUT_BLANK = "about:blank"


def snapshot_path(snapshot: str) -> str:
    """Return the route of a snapshot, with which those of its parts begin."""
    return f"{SNAPSHOTS}/{snapshot}"


def manifest_path(snapshot: str) -> str:
    """Return the route of a snapshot's manifest."""
    return f"{SNAPSHOTS}/{snapshot}/manifest"


def omitted_path(snapshot: str) -> str:
    """Return the route of the list of entries that a scan left out."""
    return f"{SNAPSHOTS}/{snapshot}/omitted"


def frame_path(snapshot: str, number: int | str, suffix: str) -> str:
    """Return the route of a frame in one encoding."""
    return f"{SNAPSHOTS}/{snapshot}/frames/{number}.{suffix}"


def archive_path(snapshot: str, suffix: str) -> str:
    """Return the route of a snapshot's archive in one encoding."""
    return f"{SNAPSHOTS}/{snapshot}/archive.{suffix}"


def sums_path(snapshot: str) -> str:
    """Return the route of the digests of a snapshot's files."""
    return f"{SNAPSHOTS}/{snapshot}/SHA256SUMS"


def check_path(snapshot: str) -> str:
    """Return the route that checks whether the library is as it was scanned."""
    return f"{SNAPSHOTS}/{snapshot}/check"


def cutover_path(name: str, part: Literal["", "/lease", "/commit"] = "") -> str:
    """Return the route of a cutover, or of its lease or commit."""
    return f"{CUTOVER}/{name}{part}"
