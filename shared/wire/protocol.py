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
"""Query parameter of both: how thoroughly databases are checked (shared.plex.sqlite_check)."""
IDENTIFY_CHECKS = "identify-checks"
"""Query parameter of both: ``true`` adds ``id`` to each check. Pullers before 0.2 refuse a check
with an unknown field, so the agent adds it on request only."""
PROBE = "/v1/probe"
LOG = "/v1/log"
CUTOVER = "/v1/cutover"
SNAPSHOTS = "/v1/snapshots"
LIBRARY_ARCHIVE = "/plex-library.tar.gz"
LIBRARY_SUMS = "/SHA256SUMS"
OPENAPI = "/openapi.json"
PROBLEM_TYPE = "application/problem+json"
LOG_LINES_TYPE = "application/jsonl"
MANIFEST_TYPE = "application/zstd"
"""Of a manifest, and of the list of omitted entries: lines of JSON, zstd."""
PREFER, PROCESSING = "Prefer", "processing"
"""The request field and its value (RFC 7240) that ask for ``102`` while an answer takes long."""
HELD_PIECES, CHANGED_PIECES = "Plexodus-Held-Pieces", "Plexodus-Changed-Pieces"
"""Fields of a request and its response about pieces of a block, see shared.frames.pieces."""
LATER = "later"
"""Instead of the pieces' digests: most blocks have not changed, and then nobody has to make any.
For one that has, the agent asks for them with 428 (RFC 6585 section 3)."""
WANT_CONTENT_DIGEST, NO_DIGEST = "Want-Content-Digest", "sha-256=0"
"""The request field and its value (RFC 9530 section 4) that save the hash of a body."""
MAX_ABOUT = 1000
"""Characters of what a puller adds to the migration log at once."""
MAX_BODY = 64 * 1024
"""Bytes of a request body that the agent reads at the most."""
MAX_ANSWER = 16 * 1024 * 1024
"""Bytes of a JSON answer that the puller reads at the most."""

Count = Annotated[int, msgspec.Meta(ge=0, lt=2**62)]
Kind = Literal["live", "rehearsal", "cold"]
"""Of a snapshot: with Plex running, its files may change under it; the same, but of databases it
has consistent copies; with Plex stopped, nothing may change."""
Seconds = Annotated[float, msgspec.Meta(ge=0)]
Text = Annotated[str, msgspec.Meta(max_length=1000)]
Code = Annotated[int, msgspec.Meta(ge=0, le=255)]
Circumstances = Annotated[dict[Text, Text], msgspec.Meta(max_length=16)]
CutoverName = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]
CutoverPhase = Literal["idle", "stopping", "stopped", "committing", "committed", "undoing"]
"""Of Plex on the VM; see docs/cutover.md."""


class Health(msgspec.Struct):
    """Answer to `GET /healthz` and `GET /readyz` when all is well."""

    status: Literal["ok", "ready"]


class SnapshotRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /v1/snapshots`."""

    kind: Kind
    exclude: Annotated[list[str], msgspec.Meta(max_length=1000)] = []
    base: Annotated[str, msgspec.Meta(pattern="^(|[0-9a-f]{64})$")] = ""
    """A snapshot that the puller has all frames of: what is as in it is marked as kept, and in no
    frame."""
    placed: bool = False
    """Put Plex's own folder where Plex's image looks for it. A library called `Plex Media Server`
    gets the folders `Library` and `Application Support` above it, with its own attributes. Other
    libraries stay as they are."""


class Library(msgspec.Struct):
    """Which library a snapshot is of."""

    id: str
    """The same for the same folder of the same machine, whatever is in it, and for the same Plex
    server's library after a move on that machine."""
    name: str
    """The last name of its path, under which it arrives; `Library` if the scan has placed it."""
    host: str
    path: str


class OmittedList(msgspec.Struct, frozen=True):
    """How many entries a scan left out, and which file lists them, one record for each."""

    excluded: Count
    """Records of what the patterns of `exclude` matched."""
    skipped: Count
    """Records of what is not library content: FIFOs, sockets, devices, unusable xattrs."""
    bytes: Count
    """Bytes of the file as it is sent."""
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    """Digest of the file as it is sent, hexadecimal."""


class Snapshot(msgspec.Struct):
    """Answer to `POST /v1/snapshots` and `GET /v1/snapshots/{id}`."""

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
    """The snapshot that it is a delta to; empty: to none."""
    omitted: OmittedList | None = None
    """What the scan left out. None: an older release made this snapshot, and kept no such list."""


class MediaFolder(msgspec.Struct, frozen=True):
    """A folder that a library of Plex looks for its media in."""

    section: str
    """The library's name in Plex."""
    path: str


class ServerReport(msgspec.Struct, frozen=True):
    """Answer to `GET /v1/library/server`: results of the checks that need no walk of the tree."""

    library: Library
    plex_version: str | None
    media: list[MediaFolder]
    checks: list[Check]


class LibraryReport(ServerReport, frozen=True):
    """Answer to `GET /v1/library`: results of all checks of the source, and the library's size."""

    entries: Count
    content_bytes: Count
    read_seconds: Seconds
    """Estimated time to read all of it, from a sample."""


class PullerEvent(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /v1/log`: what the puller adds to the migration log."""

    event: Annotated[str, msgspec.Meta(pattern="^[a-z]{1,40}$")]
    about: Annotated[str, msgspec.Meta(max_length=MAX_ABOUT)]


class StopFailure(msgspec.Struct, frozen=True):
    """A failure while Plex was stopped that a retry meets again, unless something changes."""

    code: Code
    """Exit code of the pull."""
    what: Text
    hint: Text
    at: Text
    """When it happened: RFC 3339, UTC."""
    circumstances: Circumstances
    """What it depends on, by name: the puller's version, its options, the volume and so on."""
    available: Count = 0
    """Bytes that the volume could still take, if it was full; otherwise 0."""


class CutoverRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /v1/cutover`: Plex is to be stopped, and to stay so for this puller."""

    id: CutoverName
    """Made up by the puller, so that it can ask again when an answer was lost."""
    puller: Annotated[str, msgspec.Meta(max_length=300)]
    """Who that is, for people."""
    max_seconds: Seconds = 0.0
    """How long Plex may stay stopped in all, however often the lease is renewed; 0: no limit."""
    circumstances: Circumstances = {}
    """As in a :class:`StopFailure`; the same as in the last one: Plex is not stopped."""
    retry: bool = False
    """Stop Plex although an earlier failure or a pause says no."""


class UndoRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Optional body of `DELETE /v1/cutover/{id}`."""

    failure: StopFailure | None = None
    """Why, if a retry would meet it again."""


class CommitRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `PUT /v1/cutover/{id}/commit`: Plex is to stay stopped for good."""

    snapshot: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    """What the puller is about to publish, all of it verified."""


class CutoverStanding(msgspec.Struct, frozen=True):
    """Answer to all of `/v1/cutover`: the state of the cutover."""

    phase: CutoverPhase
    id: str
    """Of the last one, while idle."""
    puller: str
    since: str
    """When the phase began: RFC 3339, UTC."""
    seconds: Seconds
    """That the lease still holds if nobody renews it."""
    snapshot: str
    """What was committed."""
    why: str
    """Why the last one ended, while idle or undoing."""
    failure: StopFailure | None = None
    """What must change before Plex is stopped again."""
    stops: Count = 0
    """How often Plex was stopped in a row without a commit."""
    pause: Seconds = 0.0
    """That have to pass before Plex is stopped again."""
    agent: str = ""
    """The agent's version and settings, as one of the circumstances of a failure."""


class Problem(msgspec.Struct):
    """A failure (RFC 9457). `type` is `about:blank` or one of the `urn:plexodus:` names."""

    type: str
    title: str
    status: int
    detail: str = ""
    paths: list[str] = []
    """The paths it is about, where it is about paths."""


SOURCE_CHANGED = "urn:plexodus:source-changed"
SOURCE_UNREADABLE = "urn:plexodus:source-unreadable"
NO_SUCH_SNAPSHOT = "urn:plexodus:no-such-snapshot"
CUTOVER_ENDED = "urn:plexodus:cutover-ended"
CUTOVER_REFUSED = "urn:plexodus:cutover-refused"
STORAGE = "urn:plexodus:storage"
ABOUT_BLANK = "about:blank"


def snapshot_path(snapshot: str) -> str:
    """The route of one snapshot; the others begin with it."""
    return f"{SNAPSHOTS}/{snapshot}"


def manifest_path(snapshot: str) -> str:
    """The route of its manifest."""
    return f"{SNAPSHOTS}/{snapshot}/manifest"


def omitted_path(snapshot: str) -> str:
    """The route of the list of what it leaves out."""
    return f"{SNAPSHOTS}/{snapshot}/omitted"


def frame_path(snapshot: str, number: int | str, suffix: str) -> str:
    """The route of one frame in one encoding."""
    return f"{SNAPSHOTS}/{snapshot}/frames/{number}.{suffix}"


def archive_path(snapshot: str, suffix: str) -> str:
    """The route of the whole archive in one encoding."""
    return f"{SNAPSHOTS}/{snapshot}/archive.{suffix}"


def sums_path(snapshot: str) -> str:
    """The route of the files' digests."""
    return f"{SNAPSHOTS}/{snapshot}/SHA256SUMS"


def check_path(snapshot: str) -> str:
    """The route that looks whether the source is still as it was scanned."""
    return f"{SNAPSHOTS}/{snapshot}/check"


def cutover_path(name: str) -> str:
    """The route of one cutover."""
    return f"{CUTOVER}/{name}"


def lease_path(name: str) -> str:
    """The route of its lease."""
    return f"{CUTOVER}/{name}/lease"


def commit_path(name: str) -> str:
    """The route that ends it well."""
    return f"{CUTOVER}/{name}/commit"
