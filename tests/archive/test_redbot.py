"""REDbot, a checker of HTTP, finds no fault in the responses.

It asks for a range, with ``If-None-Match`` and for compression, and compares the answers.
"""

from __future__ import annotations

import asyncio
import random
import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from aiohttp import web
from rig.archive.redbot_check import look_at

from shared.wire import protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from rig.archive.redbot_check import Opinion
    from rig.programs import Agent

pytestmark = pytest.mark.long

CONTENT = random.Random(3).randbytes(200_000)  # noqa: S311 - the same each time
RANGED = ("archive.tar", "archive.tar.gz", "archive.tar.zst", "manifest")


@pytest.fixture
def small(tmp_path: Path, new_agent: Callable[[Path], Agent]) -> Agent:
    """Start an agent for a library of three frames.

    The first is not tiny: REDbot asks one byte too many of a piece of less than 97 bytes.
    """
    library = tmp_path / "Library"
    library.mkdir()
    (library / "first").write_bytes(CONTENT)
    (library / "large").write_bytes(CONTENT * 25)
    agent = new_agent(library)
    agent.pair()
    agent.start()
    return agent


async def opinions(
    agent: Agent, looks: list[tuple[str, str]], authorization: str
) -> dict[tuple[str, str], Opinion]:
    """Return REDbot's opinion of each path and method, two at a time."""
    turns = asyncio.Semaphore(2)

    async def look(path: str, method: str) -> Opinion:
        """One of them, when it is its turn."""
        async with turns:
            return await asyncio.to_thread(look_at, agent.url + path, method, authorization)

    return dict(zip(looks, await asyncio.gather(*(look(*one) for one in looks)), strict=True))


async def test_redbot_finds_no_fault_in_ranges(small: Agent) -> None:
    """REDbot finds no fault, and has tried range and condition.

    The first GET of a compressed archive is chunked and of unknown length, its range is not.
    """
    snapshot = protocol.snapshot_path(small.scan().id)
    looks = [(f"{snapshot}/{name}", method) for name in RANGED for method in ("GET", "HEAD")]
    found = await opinions(small, looks, f"Bearer {small.token}")
    for (path, method), opinion in found.items():
        assert not opinion.complaints(), path
        assert opinion.statuses["default"] == 200
        assert opinion.statuses["etag_validate"] == 304
        assert "INM_304" in opinion.names()
        if method == "GET":
            assert opinion.statuses["range"] == 206
            assert "RANGE_CORRECT" in opinion.names()


async def test_redbot_finds_no_fault_in_other_resources(small: Agent) -> None:
    """REDbot finds no fault in other resources and in failures."""
    snapshot = protocol.snapshot_path(small.scan().id)
    expected = {
        (protocol.HEALTHZ, "GET"): 200,
        (protocol.OPENAPI, "GET"): 200,
        (protocol.LIBRARY_ARCHIVE, "GET"): 307,
        (protocol.SNAPSHOTS, "GET"): 405,
        ("/v1/none", "GET"): 404,
        (snapshot, "GET"): 200,
        (protocol.frame_path(snapshot.rpartition("/")[2], 1, "tar.gz"), "GET"): 200,
        (f"{snapshot}/SHA256SUMS", "GET"): 200,
        (f"{snapshot}/SHA256SUMS", "HEAD"): 200,
    }
    found = await opinions(small, list(expected), f"Bearer {small.token}")
    assert not [note for opinion in found.values() for note in opinion.complaints()]
    assert {look: opinion.statuses["default"] for look, opinion in found.items()} == expected
    nobody = (await opinions(small, [(snapshot, "GET")], ""))[snapshot, "GET"]
    assert (nobody.statuses["default"], nobody.complaints()) == (401, [])


@asynccontextmanager
async def served(wrong: str) -> AsyncIterator[str]:
    """Return the URL of a server that does ``wrong``, or nothing wrong."""

    async def answer(request: web.Request) -> web.Response:
        """One range or the whole; an invalid range is refused."""
        headers = {"ETag": '"1"', "Accept-Ranges": "bytes", "Cache-Control": "no-cache"}
        if "If-None-Match" in request.headers and wrong != "no_304":
            return web.Response(status=304, headers={} if wrong == "bare_304" else headers)
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("Range", ""))
        if asked is None or wrong == "whole":
            return web.Response(body=CONTENT, headers=headers)
        first, last = int(asked[1]), int(asked[2])
        total = f"/{len(CONTENT) + (wrong == 'total')}" if wrong != "no_total" else ""
        headers["Content-Range"] = f"bytes {first}-{last}{total}"
        shift = int(wrong == "shifted")
        body = CONTENT[first + shift : last + 1 + shift]
        return web.Response(status=206, body=body, headers=headers)

    app = web.Application()
    app.add_routes([web.get("/", answer)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ("nothing", None),
        ("shifted", "RANGE_INCORRECT"),
        ("total", "RANGE_INCORRECT_LENGTH"),
        ("no_total", "CONTENT_RANGE_MISSING_SLASH"),
        ("whole", "RANGE_FULL"),
        ("no_304", "INM_FULL"),
        ("bare_304", "MISSING_HDRS_304"),
    ],
)
async def test_redbot_sees_a_server_that_is_wrong(wrong: str, complaint: str | None) -> None:
    """REDbot reports a faulty server, which shows that the tests above can fail."""
    async with served(wrong) as url:
        opinion = await asyncio.to_thread(look_at, url)
    names = {note.name for note in opinion.complaints()}
    assert complaint in names if complaint else not names, opinion.notes
