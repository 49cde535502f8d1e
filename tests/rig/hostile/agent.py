"""An agent that speaks the protocol and lies: it serves whatever a test gives it."""

from __future__ import annotations

import asyncio
import hashlib
import os
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import zstandard
from aiohttp import web

from agent.frames.encoder import encode
from agent.server.credentials import make_pairing
from agent.server.tls import server_tls
from agent.settings import Settings
from initpuller.agent_client.retry import Retrier
from initpuller.pull.options import Mode, PullOptions
from initpuller.pull.recipe import pull
from initpuller.report.progress import PullProgress
from initpuller.volume.decision import OnExisting
from initpuller.volume.ownership import choose_ownership
from rig.frame_plan import plan
from rig.volume import everything
from shared import errors
from shared.frames.codec import Encoding
from shared.frames.pieces import PIECE
from shared.frames.plan import FRAME, is_large, members
from shared.frames.sha256sums import format_sum
from shared.frames.tar_layout import header
from shared.program.exit_codes import ExitCode, exit_code_for
from shared.tree.manifest import Entry, Kind, format_line
from shared.tree.omitted import Omitted, Reason, format_omitted
from shared.wire import protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

    from shared.wire.pairing import Pairing

NOTHING: Mapping[bytes, bytes] = {}
_MODES = {Kind.DIRECTORY: 0o755, Kind.SYMLINK: 0o777, Kind.FILE: 0o644, Kind.HARDLINK: 0o644}


def entry(path: bytes, kind: Kind = Kind.FILE, **changes: Any) -> Entry:  # noqa: ANN401
    """Return an entry as a scan would, owned by this user, with ``changes``."""
    plain = Entry(
        path=path,
        kind=kind,
        mode=_MODES[kind],
        uid=os.geteuid(),
        gid=os.getegid(),
        mtime_ns=1_600_000_000_123_456_789,
        ctime_ns=1,
        inode=1,
    )
    return msgspec.structs.replace(plain, **changes)


def folder(path: bytes) -> Entry:
    """Return a folder."""
    return entry(path, Kind.DIRECTORY)


def symlink(path: bytes, target: bytes) -> Entry:
    """Return a symlink."""
    return entry(path, Kind.SYMLINK, link=target)


def hardlink(path: bytes, first: bytes) -> Entry:
    """Return a hard link."""
    return entry(path, Kind.HARDLINK, link=first)


def frame_tars(entries: Sequence[Entry], contents: Mapping[bytes, bytes]) -> list[bytes]:
    """Return the tar bytes of every frame. A file without ``contents`` is all zeros."""
    tars = []
    for frame in plan(entries):
        tar = bytearray(frame.size)
        inside = entries[frame.first : frame.first + frame.count]
        for member in members(frame, inside):
            if member.offset == 0:
                tar[member.start : member.content] = header(member.entry)
            content = contents.get(member.entry.path, b"")
            piece = content[member.offset : member.offset + member.length]
            tar[member.content : member.content + len(piece)] = piece
        tars.append(bytes(tar))
    return tars


@dataclass
class Reply:
    """The response to one request."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    endless: bool = False
    """Whether the body is sent repeatedly until the client hangs up."""


SOUND = msgspec.json.encode(
    protocol.ServerReport(protocol.Library("0" * 32, "Library", "vm", "/srv/Library"), None, [], [])
)
"""A report without failures."""


@dataclass
class Offer:
    """All responses of an agent. The n-th request of a kind gets the n-th response, or the last."""

    snapshot: dict[str, Any]
    """The response to the scan, before it is JSON."""
    scan: list[Reply]
    """Responses that replace that one, unless empty."""
    manifest: list[Reply]
    omitted: list[Reply]
    frames: list[list[Reply]]
    sums: list[Reply]
    check: list[Reply]
    server: list[Reply]
    """The responses to the preflight."""

    def announce(self, manifest: bytes, name: str | None = None) -> None:
        """Serve ``manifest`` (its bytes on the wire), with snapshot ``name`` if given."""
        self.manifest = [Reply(manifest)]
        self.snapshot["manifest_bytes"] = len(manifest)
        if name is not None:
            self.snapshot["id"] = name

    def omit(self, *records: Omitted, packed_list: bytes | None = None) -> None:
        """Serve and correctly announce a list of ``records``, or ``packed_list``."""
        if packed_list is None:
            packed_list = packed(b"".join(map(format_omitted, records)))
        excluded = sum(record.reason is Reason.EXCLUDED for record in records)
        self.omitted = [Reply(packed_list)]
        self.snapshot["omitted"] = {
            "excluded": excluded,
            "skipped": len(records) - excluded,
            "bytes": len(packed_list),
            "sha256": hashlib.sha256(packed_list).hexdigest(),
        }


def frame_tags(entries: Sequence[Entry], contents: Mapping[bytes, bytes]) -> list[str]:
    """Return the digest of every frame: that of the digests of its files, or a block's pieces."""
    tags = []
    for frame in plan(entries):
        digests = []
        for member in members(frame, entries[frame.first : frame.first + frame.count]):
            if member.entry.kind is Kind.FILE:
                content = contents.get(member.entry.path, b"").ljust(member.entry.size, b"\0")
                part = content[member.offset : member.offset + member.length]
                step = PIECE if is_large(member.entry) else FRAME
                pieces = (part[start : start + step] for start in range(0, len(part) or 1, step))
                digests += [hashlib.sha256(piece).digest() for piece in pieces]
        tags.append(hashlib.sha256(b"".join(digests)).hexdigest())
    return tags


def frame_reply(tar: bytes, tag: str, body: bytes | None = None) -> Reply:
    """Return a frame with the digest ``tag``, and ``body`` in place of ``tar`` if given."""
    encoded = encode(tar, Encoding.ZSTD) if body is None else body
    return Reply(bytes(encoded), headers={"ETag": f'"{tag}"'})


def packed(lines: bytes) -> bytes:
    """Return manifest lines as on the wire: one zstd frame."""
    return zstandard.ZstdCompressor().compress(lines)


def offer_lines(lines: bytes) -> Offer:
    """Return an offer with a manifest of these lines, correctly named, and nothing else."""
    snapshot = {
        "id": hashlib.sha256(lines).hexdigest(),
        "kind": "cold",
        "library": {"id": "0" * 32, "name": "Library", "host": "vm", "path": "/srv/Library"},
        "created": "2024-01-01T00:00:00+00:00",
        "entries": 0,
        "files": 0,
        "content_bytes": 0,
        "frames": 0,
        "exclude": [],
    }
    offer = Offer(snapshot, [], [], [], [], [Reply()], [Reply(status=204)], [Reply(SOUND)])
    offer.announce(packed(lines))
    offer.omit()
    return offer


def offer_tree(entries: Sequence[Entry], contents: Mapping[bytes, bytes] = NOTHING) -> Offer:
    """Return an honest offer of ``entries``."""
    frames = plan(entries)
    offer = offer_lines(b"".join(map(format_line, entries)))
    offer.snapshot |= {
        "entries": frames.entries,
        "files": frames.files,
        "content_bytes": frames.content_bytes,
        "frames": len(frames),
    }
    tars, tags = frame_tars(entries, contents), frame_tags(entries, contents)
    offer.frames = [[frame_reply(tar, tag)] for tar, tag in zip(tars, tags, strict=True)]
    sums = [
        format_sum(hashlib.sha256(contents.get(each.path, bytes(each.size))).digest(), each.path)
        for each in entries
        if each.kind is Kind.FILE
    ]
    offer.sums = [Reply(b"".join(sums))]
    return offer


_IDLE = protocol.CutoverStanding("idle", "", "", "", 0.0, "", "")


@dataclass
class HostileAgent:
    """Serves an :class:`Offer`, which a test may change between requests."""

    offer: Offer
    pairing: Pairing
    requests: list[str] = field(default_factory=list)
    """Method and path of each request."""
    unauthenticated: int = 0
    """Number of requests without the token."""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Return the offer's response to ``request``."""
        asked = f"{request.method} {request.path}"
        times = self.requests.count(asked)
        self.requests.append(asked)
        if request.headers.get("Authorization") != f"Bearer {self.pairing.token}":
            self.unauthenticated += 1
        replies = self._replies(request)
        reply = replies[min(times, len(replies) - 1)]
        if not reply.endless:
            return web.Response(body=reply.body, status=reply.status, headers=reply.headers)
        response = web.StreamResponse(status=reply.status, headers=reply.headers)
        await response.prepare(request)
        while True:
            await response.write(reply.body)
            await asyncio.sleep(0)  # a write alone may never let other tasks run

    def _replies(self, request: web.Request) -> list[Reply]:
        offer, last = self.offer, request.path.rpartition("/")[2]
        if request.path == protocol.LIBRARY_SERVER:
            return offer.server
        if request.path == protocol.CUTOVER:
            return [Reply(msgspec.json.encode(_IDLE))]
        if request.path == protocol.SNAPSHOTS:
            return offer.scan or [Reply(msgspec.json.encode(offer.snapshot), 201)]
        if "/frames/" in request.path:
            return offer.frames[int(last.partition(".")[0])]
        known = {
            "manifest": offer.manifest,
            "omitted": offer.omitted,
            "SHA256SUMS": offer.sums,
            "check": offer.check,
            "probe": [Reply(b"slow")],
        }
        return known.get(last, [Reply(status=404)])


@asynccontextmanager
async def serving(state: Path, offer: Offer) -> AsyncIterator[HostileAgent]:
    """Start a hostile agent, with its certificate and token in ``state``."""
    pairing = make_pairing(str(state), "127.0.0.1", 1)
    agent = HostileAgent(offer, pairing)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", agent.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        tls = server_tls(Settings(state=str(state)))
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        agent.pairing = replace(pairing, port=runner.addresses[0][1])
        yield agent
    finally:
        await runner.cleanup()


def _lay_ground(root: Path) -> None:
    """Make a volume, and beside it files that an agent must not reach."""
    (root / "outside" / "folder").mkdir(parents=True)
    (root / "outside" / "secret").write_bytes(b"untouched")
    (root / "target" / ".plexodus").mkdir(parents=True)
    (root / "target" / "other").write_bytes(b"somebody else's")


def options(root: Path, pairing: Pairing) -> PullOptions:
    """Return the options of a pull that retries at once."""
    return PullOptions(
        pairing=pairing,
        target=str(root / "target"),
        mode=Mode.MOVE_STOPPED,
        ownership=choose_ownership(None),
        exclude=[],
        jobs=2,
        on_existing=OnExisting.SKIP,
        retrier=Retrier((0.001, 0.001, 0.001)),
        idle=10,
    )


def _untouched(root: Path) -> dict[str, tuple[object, ...]]:
    """Return everything except the target folder's own times, which a probe changes."""
    found = everything(root)
    del found[str(root / "target")]
    return found


async def refused(
    root: Path,
    offer: Offer,
    kind: type[errors.PlexodusError],
    code: ExitCode = ExitCode.INTEGRITY,
) -> HostileAgent:
    """Pull the offer, and assert that it fails with ``kind`` and touches nothing outside."""
    _lay_ground(root)
    async with serving(root / "state", offer) as agent:
        before = _untouched(root)
        with pytest.raises(errors.PlexodusError) as caught:
            await pull(options(root, agent.pairing), PullProgress())
        assert type(caught.value) is kind, caught.value
        assert exit_code_for(caught.value) is code
        assert _untouched(root) == before
        assert agent.unauthenticated == 0
        return agent
