"""Every failure has an exit code, and every garbled response is reported as an error."""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import msgspec
import pytest
from rig.hostile.agent import options

from agent.server.credentials import make_pairing
from agent.server.tls import server_tls
from agent.settings import Settings
from initpuller.agent_client.error_responses import failure
from initpuller.pull.recipe import pull
from initpuller.report.progress import PullProgress
from shared import errors
from shared.program.exit_codes import ExitCode, exit_code_for
from shared.wire.protocol import SOURCE_CHANGED, Problem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

DOCS = Path(__file__).parent.parent.parent / "docs"


def every_error() -> Iterator[type[errors.PlexodusError]]:
    """Return all classes below PlexodusError."""
    waiting = [errors.PlexodusError]
    while waiting:
        kind = waiting.pop()
        yield kind
        waiting += kind.__subclasses__()


def made(kind: type[errors.PlexodusError]) -> errors.PlexodusError:
    """Return an error of this class."""
    if kind is errors.SourceUnreadable:
        return errors.SourceUnreadable(["Library/a"])
    if kind is errors.TreeDiffers:
        return errors.TreeDiffers(["Library/a: is missing"], "/config")
    return kind("what happened", path=b"Library/\x1b[2J\xff", hint="Do this.")


CLASSES = set(every_error()) - {errors.PlexodusError, errors.Temporary, errors.Permanent}


@pytest.mark.parametrize("kind", sorted(CLASSES, key=repr))
def test_error_has_an_exit_code(kind: type[errors.PlexodusError]) -> None:
    """Every error is temporary or permanent, has a documented exit code and can be printed."""
    error = made(kind)
    code = exit_code_for(error)

    assert issubclass(kind, errors.Temporary) != issubclass(kind, errors.Permanent)
    assert code not in (ExitCode.OK, ExitCode.INTERNAL)
    assert re.search(rf"\b{int(code)}\b", (DOCS / "exit-codes.md").read_text())
    assert not isinstance(error, aiohttp.ClientError | OSError)
    assert "\x1b" not in str(error)


def test_errors_of_others_are_internal() -> None:
    """A foreign error or a raised base class exits with the code of an internal error."""
    for error in (ValueError(), OSError(), aiohttp.ClientError(), errors.Permanent("x")):
        assert exit_code_for(error) is ExitCode.INTERNAL


def test_control_characters_of_the_agent_are_escaped() -> None:
    """Control characters in an error message are escaped, whoever wrote it."""
    error = errors.AgentUnreachable("it said \x1b[2J\x07 and\nmore")
    assert str(error) == r"it said \x1b[2J\x07 and\nmore"


@pytest.mark.parametrize("advice", ["Rehearse again.", ""])
def test_advice_about_a_changed_source_is_the_agents(advice: str) -> None:
    """A rehearsal is not advised to stop Plex, which is meant to run."""
    problem = Problem(SOURCE_CHANGED, "changed", 409, detail=advice)
    error = failure(409, "Conflict", msgspec.json.encode(problem))
    assert isinstance(error, errors.SourceChanged)
    assert error.hint == (advice or "Is Plex really stopped? Stop it and run again.")


@asynccontextmanager
async def garbling(state: Path, answer: bytes) -> AsyncIterator[int]:
    """Yield the port of a TLS server that answers each request with these bytes and hangs up."""

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        try:
            await reader.readuntil(b"}")
            writer.write(answer)
            await writer.drain()
            writer.close()
            await writer.wait_closed()
        except (OSError, asyncio.IncompleteReadError):
            pass

    tls = server_tls(Settings(state=str(state)))
    async with await asyncio.start_server(reply, "127.0.0.1", 0, ssl=tls) as server:
        yield server.sockets[0].getsockname()[1]


OK = b"HTTP/1.1 201 Created\r\n"
GARBLED = {
    "nothing": b"",
    "no_http": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    "binary": bytes(range(256)),
    "status_no_number": b"HTTP/1.1 abc Created\r\n\r\n",
    "header_without_colon": OK + b"nonsense\r\n\r\n",
    "giant_header": OK + b"X: " + b"x" * 100_000 + b"\r\n\r\n",
    "many_headers": OK + b"X: x\r\n" * 50_000 + b"\r\n",
    "length_no_number": OK + b"Content-Length: many\r\n\r\n",
    "length_negative": OK + b"Content-Length: -5\r\n\r\n",
    "body_too_short": OK + b"Content-Length: 500\r\n\r\nshort",
    "chunk_size_no_number": OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "chunk_size_giant": OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 90_000 + b"\r\n",
    "chunks_cut": OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab",
    "switching_protocols": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
    "content_type_nonsense": b"HTTP/1.1 500 No\r\nContent-Type: ;;=\xff\r\n\r\n",
}


async def test_response_that_is_not_http_is_unreachable(tmp_path: Path) -> None:
    """If a response is not HTTP, the client raises its own error and no library appears.

    A pull tries again for 40 s, so all of them run at once.
    """
    await asyncio.gather(*(_is_unreachable(tmp_path / name, GARBLED[name]) for name in GARBLED))


async def _is_unreachable(place: Path, answer: bytes) -> None:
    (place / "target").mkdir(parents=True)
    pairing = make_pairing(str(place / "state"), "127.0.0.1", 1)
    async with garbling(place / "state", answer) as port:
        wanted = options(place, replace(pairing, port=port))
        with pytest.raises(errors.PlexodusError) as caught:
            await pull(wanted, PullProgress())
    assert exit_code_for(caught.value) in (ExitCode.UNREACHABLE, ExitCode.INTEGRITY), place
    assert [path.name for path in (place / "target").iterdir()] == [".plexodus"], place
