"""Requests without a token, with bad paths or sizes, or garbage get a problem response."""

from __future__ import annotations

import base64
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aiohttp
import msgspec
import pytest
from yarl import URL

from agent.app import listen, make_app
from agent.server.credentials import make_pairing
from agent.server.tls import server_tls
from agent.settings import Settings
from agent.source.library import CurrentLibrary
from shared.wire import protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

NAME = "0" * 64
ROUTES = [
    ("POST", protocol.SNAPSHOTS),
    ("GET", protocol.snapshot_path(NAME)),
    ("GET", protocol.manifest_path(NAME)),
    ("GET", protocol.omitted_path(NAME)),
    ("GET", protocol.frame_path(NAME, 0, "tar.zst")),
    ("GET", protocol.sums_path(NAME)),
    ("POST", protocol.check_path(NAME)),
    ("GET", "/v1/no/such/route"),
    ("DELETE", protocol.SNAPSHOTS),
]
SCAN = b'{"kind":"cold"}'


@dataclass
class Answer:
    """A response."""

    status: int
    headers: Mapping[str, str]
    content: bytes


class Session:
    """Requests to one agent, each looked at for what must hold of all of them."""

    def __init__(self, http: aiohttp.ClientSession, base: str, token: str) -> None:
        self.token = token
        self.right = {"Authorization": f"Bearer {token}"}
        self._http = http
        self._base = base

    async def ask(
        self, method: str, path: str, headers: dict[str, str], data: bytes | None = None
    ) -> Answer:
        """Return the response with its body. Failures are problems, and never repeat the token."""
        url = URL(self._base + path, encoded=True)
        async with self._http.request(method, url, headers=headers, data=data) as answer:
            content = await answer.read()
            assert self.token.encode() not in content
            if answer.status >= 400:
                assert answer.content_type == protocol.PROBLEM_TYPE
            return Answer(answer.status, answer.headers, content)

    async def status(
        self, method: str, path: str, headers: dict[str, str], data: bytes | None = None
    ) -> int:
        """Return the status of the response."""
        return (await self.ask(method, path, headers, data)).status

    async def scan(self) -> protocol.Snapshot:
        """Return an existing snapshot."""
        answer = await self.ask("POST", protocol.SNAPSHOTS, self.right, SCAN)
        assert answer.status == 201
        return msgspec.json.decode(answer.content, type=protocol.Snapshot)


@asynccontextmanager
async def talking(root: Path) -> AsyncIterator[Session]:
    """Start an agent for a library of one file, and return a client with its token."""
    (root / "Library").mkdir()
    (root / "Library" / "file").write_bytes(b"content")
    state = str(root / "state")
    token = make_pairing(state, "127.0.0.1", 1).token
    library = CurrentLibrary(str(root / "Library"), str, state)
    settings = Settings(state=state, listen="127.0.0.1:0")
    parts = make_app(settings, library)
    runner, _ = await listen(parts, settings, server_tls(settings))
    try:
        base = f"https://127.0.0.1:{runner.addresses[0][1]}"
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=False)) as http:
            yield Session(http, base, token)
    finally:
        await runner.cleanup()


async def test_request_without_the_token_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every route except health gets 401 without the token, and the log keeps the secret."""
    monkeypatch.setattr("agent.server.auth._LONGEST_DELAY", 0.0)
    async with talking(tmp_path) as session:
        token = session.token
        basic = base64.b64encode(token.encode() + b":").decode()
        for authorization in (
            "",
            "Bearer",
            "Bearer " + "x" * 43,
            f"Bearer {token[:-1]}",
            f"Bearer {token}x",
            f"Token {token}",
            token,
            "Basic %%%",
            "Basic eDp4",
            f"Basic {basic}",
        ):
            headers = {"Authorization": authorization} if authorization else {}
            for method, path in ROUTES:
                answer = await session.ask(method, path, headers, SCAN)
                assert answer.status == 401, (authorization, path)
                assert "Basic" in answer.headers["WWW-Authenticate"]
        for path in ("/healthz", "/readyz"):
            assert await session.status("GET", path, {}) == 200
        assert not list((tmp_path / "state" / "snapshots").iterdir())
        told = "".join(capsys.readouterr())
        assert token not in told
        assert basic not in told


async def test_token_is_accepted_as_the_password_of_basic(tmp_path: Path) -> None:
    """The token is accepted as a Basic password, with any user name."""
    async with talking(tmp_path) as session:
        for user in ("anybody", ""):
            both = base64.b64encode(f"{user}:{session.token}".encode()).decode()
            headers = {"Authorization": f"Basic {both}"}
            assert await session.status("POST", protocol.SNAPSHOTS, headers, SCAN) == 201


BODIES = {
    "empty": b"",
    "cut": b"{",
    "no_object": b"[]",
    "no_kind": b"{}",
    "kind_of_later": b'{"kind":"warm"}',
    "base_that_is_no_digest": b'{"kind":"cold","base":"x"}',
    "unknown_field": b'{"kind":"cold","x":1}',
    "not_utf_8": b'{"kind":"cold","exclude":["\xff"]}',
    "lone_surrogate": b'{"kind":"cold","exclude":["\\ud800"]}',
    "exclude_no_list": b'{"kind":"cold","exclude":"a"}',
    "exclude_a_number": b'{"kind":"cold","exclude":[7]}',
    "too_many_excludes": b'{"kind":"cold","exclude":[' + b'"a",' * 1000 + b'"a"]}',
    "deeply_nested": b"[" * 60_000,
    "deeply_nested_to_its_end": b"[" * 30_000 + b"]" * 30_000,
    **{f"{depth}_lists": b"[" * depth + b"]" * depth for depth in range(100, 1100, 100)},
}


async def test_garbage_body_is_refused(tmp_path: Path) -> None:
    """A garbage body gets 400, one over the limit 413, and no scan is made."""
    async with talking(tmp_path) as session:
        for name, body in BODIES.items():
            status = await session.status("POST", protocol.SNAPSHOTS, session.right, body)
            assert status == 400, name
        large = b" " * (protocol.MAX_BODY + 1)
        assert await session.status("POST", protocol.SNAPSHOTS, session.right, large) == 413
        assert not list((tmp_path / "state" / "snapshots").iterdir())


@pytest.mark.parametrize("field", ["code", "available"])
async def test_integer_with_a_fraction_is_refused(tmp_path: Path, field: str) -> None:
    """A body may have 246.0 for 246, as its published schema allows, but no other number for it."""
    failure = {"code": 1, "what": "", "hint": "", "at": "", "circumstances": {}}
    async with talking(tmp_path) as session:
        path = protocol.cutover_path("0" * 32)
        for number, expected in (
            ("246", 409), ("246.0", 409), ("2.46e2", 409), ("0.0", 409),
            ("246.5", 400), ("1e300", 400), ("1e999", 400), ("-1.0", 400), ('"246"', 400),
        ):  # fmt: skip
            told = json.dumps({"failure": failure | {field: "NUMBER"}})
            body = told.replace('"NUMBER"', number).encode()
            assert await session.status("DELETE", path, session.right, body) == expected, number


async def test_body_with_a_wrong_encoding_is_refused(tmp_path: Path) -> None:
    """A body that contradicts its encoding gets 400."""
    async with talking(tmp_path) as session:
        headers = session.right | {"Content-Encoding": "gzip"}
        assert await session.status("POST", protocol.SNAPSHOTS, headers, SCAN) == 400


async def test_invalid_snapshot_name_is_not_found(tmp_path: Path) -> None:
    """An invalid snapshot name gets 404, even if such a folder exists."""
    async with talking(tmp_path) as session:
        name = (await session.scan()).id
        for bad in (
            "..%2f..",
            f"..%2fsnapshots%2f{name}",
            "%2e",
            ".",
            "..%00",
            "%ff",
            name.upper(),
        ):
            for method, path in ROUTES[1:7]:
                assert await session.status(method, path.replace(NAME, bad), session.right) == 404
        statuses = [await session.status(*route, session.right) for route in ROUTES[1:]]
        assert statuses == [404, 404, 404, 404, 404, 404, 404, 405]


async def test_frame_number_out_of_range_is_refused(tmp_path: Path) -> None:
    """A number past the last frame or an unknown encoding gets 404."""
    async with talking(tmp_path) as session:
        snapshot = await session.scan()
        numbers = ("-1", "0x0", "9" * 12, "1" * 13, str(snapshot.frames), "%D9%A1", "")
        wrong = [(number, "tar") for number in numbers]
        wrong += [("0", suffix) for suffix in ("zip", "tar.bz2", "tar.GZ", "tar.gz%00")]
        for number, suffix in wrong:
            path = protocol.frame_path(snapshot.id, number, suffix)
            assert await session.status("GET", path, session.right) == 404, path


async def test_frame_that_the_client_has_is_not_sent(tmp_path: Path) -> None:
    """A known entity-tag gets 304 without a body, in each encoding."""
    async with talking(tmp_path) as session:
        name = (await session.scan()).id
        whole = await session.ask("GET", protocol.frame_path(name, 0, "tar"), session.right)
        tag = whole.headers["ETag"]
        for suffix in ("tar", "tar.gz", "tar.zst"):
            for known, expected in ((tag, 304), (f'"x", {tag}', 304), ("*", 304), ('"x"', 200)):
                headers = session.right | {"If-None-Match": known}
                path = protocol.frame_path(name, 0, suffix)
                answer = await session.ask("GET", path, headers)
                assert (answer.status, answer.headers["ETag"]) == (expected, tag)
                assert bool(answer.content) == (expected == 200)
