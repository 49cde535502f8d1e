"""In log lines secrets are masked, foreign text stays on one line, and the subject is named."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
import os
import subprocess
import sys
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
import structlog
from aiohttp import ClientSession, web

from agent.server.problems import log_request
from initpuller.agent_client.retry import Retrier
from initpuller.agent_client.schedule import fetch_frames
from shared.errors import AgentUnreachable
from shared.program import logs
from shared.wire.pairing import Pairing

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKEN = "aB3-" + "x7_Qz" * 7 + "9Kpw"
PAIRING = str(Pairing(host="vm", port=1, fingerprint="0" * 64, token=TOKEN))
RENDERINGS = {
    "alone": TOKEN,
    "bearer": f"Authorization: Bearer {TOKEN}",
    "bearer_of_a_list": str({"Authorization": ["Bearer", TOKEN]}),
    "bytes": repr(f"Authorization: Bearer\v{TOKEN}\0".encode()),
    "json": json.dumps({"token": TOKEN}),
    "pairing": PAIRING,
    "pairing_percent_encoded": quote(PAIRING, safe=""),
    "basic": base64.b64encode(f"user:{TOKEN}".encode()).decode(),
    "basic_without_a_user": "Basic " + base64.b64encode(f":{TOKEN}".encode()).decode(),
    "basic_percent_encoded": quote("basic " + base64.b64encode(f"a:{TOKEN}".encode()).decode()),
    "query": f"/v1/library?token={TOKEN}&x=1",
    "beside_other_letters": f"Müller{TOKEN}千と千尋",
}


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Restore logging after a test configured it."""
    root, before = logging.getLogger(), logging.getLogger().handlers[:]
    structlog.contextvars.clear_contextvars()
    yield
    structlog.contextvars.clear_contextvars()
    root.handlers = before
    structlog.reset_defaults()


@pytest.mark.parametrize("text", RENDERINGS.values(), ids=RENDERINGS.keys())
def test_token_is_masked_in_each_rendering(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A token is masked in values, lists, keys, events and exceptions."""
    logs.configure()
    secrets = TOKEN, base64.b64encode(f"user:{TOKEN}".encode()).decode()[:40]
    log = structlog.get_logger("test")
    event = f"event {text}"
    log.warning(event, value=text, list=[text], dict={text: {text}}, **{text: 1})
    try:
        int(text)
    except ValueError as error:
        log.exception("failed", error=error)
        logging.getLogger("aiohttp.server").exception("of a library %s", text)
    told = capsys.readouterr().err
    assert told.count("[secret]") > 8
    for secret in secrets:
        assert secret not in told


def test_digests_and_paths_are_not_masked() -> None:
    """Text that an administrator has to read stays readable."""
    digest = hashlib.sha256(b"").hexdigest()
    for text in (
        f"/v1/snapshots/{digest}/frames/17.tar.zst",
        f"Metadata/Movies/0/{digest[:39]}.bundle/Contents/_combined/posters/com.plexapp.agents",
        "Library/Application Support/Plex Media Server/Plug-in Support/Databases",
    ):
        assert logs.without_secrets(text) == text


def test_hostile_words_stay_on_one_short_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Foreign text has no terminal escape and no newline, and is cut."""
    logs.configure()
    words = "\x1b]0;title\x07\x9b31m\u202egnp\r" + "long " * 100_000
    structlog.get_logger("test").warning("event", said=words, paths=[words])
    told = capsys.readouterr().err
    assert told.endswith("\n")
    assert told[:-1].isprintable()
    assert len(told) < 3 * logs.MAX_VALUE
    assert "(cut)" in json.loads(told)["said"]


def test_secret_at_the_cut_of_a_value_is_masked(capsys: pytest.CaptureFixture[str]) -> None:
    """No half of a token is left where a value is cut."""
    logs.configure()
    for before in range(logs.MAX_VALUE - 60, logs.MAX_VALUE + 10, 7):
        structlog.get_logger("test").warning("event", said="." * before + " " + TOKEN)
        assert TOKEN[:8] not in capsys.readouterr().err


def test_library_that_logs_too_much(capsys: pytest.CaptureFixture[str]) -> None:
    """Of a burst of foreign lines the rest is counted, and every line has our format."""
    logs.configure()
    for number in range(1000):
        logging.getLogger("asyncio").warning("socket.send() raised exception %d", number)
    told = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert 0 < len(told) < 100
    assert told[0]["library"] == "asyncio"


def test_library_whose_arguments_do_not_fit(capsys: pytest.CaptureFixture[str]) -> None:
    """Its mistake in a message is no failure of the work, and shows no argument."""
    logs.configure()
    said = "%d requests of %s"
    mistaken = logging.LogRecord("aiohttp", logging.WARNING, __file__, 1, said, (TOKEN,), None)
    logs.LibraryLog().handle(mistaken)
    assert json.loads(capsys.readouterr().err)["said"] == said


def test_log_limit_recovers_with_time() -> None:
    """After a burst one line passes for each second, and says how many did not."""
    limit = logs.LogLimit()
    assert [limit.admit(100.0) for _ in range(22)] == [0] * 20 + [None, None]
    assert [limit.admit(101.0), limit.admit(101.5), limit.admit(102.0)] == [2, None, 1]
    assert [limit.admit(200.0) for _ in range(21)] == [0] * 20 + [None]


def test_names_in_any_alphabet(capsys: pytest.CaptureFixture[str]) -> None:
    """A search for a title finds it in the log, also where the locale is not UTF-8."""
    title = "Amélie, 千と千尋の神隠し 🎬"
    logs.configure()
    structlog.get_logger("test").warning("event", path=title)
    assert title in capsys.readouterr().err

    program = (
        "import structlog; from shared.program import logs; logs.configure();"
        f"structlog.get_logger('test').warning('event', path={title!r})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONIOENCODING": "latin-1"},
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stderr.decode())["path"] == title


@pytest.mark.parametrize("control", ["\r", "\x1b", "\x85", "\u2028", "\u202e", "\udc80", "\x00"])
def test_control_characters_of_others(control: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A name cannot forge a line or steer a terminal; its ordinary letters stay readable."""
    logs.configure()
    structlog.get_logger("test").warning("event", path=f"Ünder{control}world")
    told = capsys.readouterr().err
    assert control not in told.rstrip("\n")
    assert len(told.splitlines()) == 1
    assert "Ünder" in told


async def test_frame_of_a_log_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Two lanes retry at the same time: each line names the run, the snapshot and its own frame."""
    logs.configure()
    structlog.contextvars.bind_contextvars(snapshot="5" * 64)
    failed, received = set[int](), []

    async def bring(number: int, _following: int | None) -> int:
        """Fail once for each frame."""
        await asyncio.sleep(0)
        if number not in failed:
            failed.add(number)
            raise AgentUnreachable("away")
        return number

    async def receive(number: int, brought: int) -> None:
        """Note the frame."""
        received.append((number, brought))

    await fetch_frames(Retrier((0.0,)), [bring, bring], [iter(range(3)), iter([3])], receive)
    structlog.get_logger("puller").info("after")

    *retries, after = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert {(each["what"], each["frame"]) for each in retries} == {
        (f"frame {number}", number) for number in range(4)
    }
    assert len({each["run"] for each in (*retries, after)}) == 1
    assert {each["snapshot"] for each in (*retries, after)} == {"5" * 64}
    assert "frame" not in after
    assert sorted(received) == [(number, number) for number in range(4)]


async def test_subject_of_a_request(capsys: pytest.CaptureFixture[str]) -> None:
    """The agent's lines name snapshot and frame of the request, if these are what they claim."""
    logs.configure()

    async def handler(_request: web.Request) -> web.Response:
        """Log a line while the request is answered."""
        structlog.get_logger("agent").info("within")
        return web.Response()

    app = web.Application(middlewares=[log_request])
    app.add_routes([web.get("/{snapshot:[^/]+}/{number:\\d+}", handler)])
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        base = "http://{}:{}".format(*runner.addresses[0])
        async with ClientSession() as session:
            for name in ("a" * 64, "forged"):
                async with session.get(f"{base}/{name}/7") as response:
                    assert response.status == 200
    finally:
        await runner.cleanup()

    told = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(each["event"], each.get("snapshot"), each.get("frame")) for each in told] == [
        ("within", "a" * 64, 7),
        ("request", "a" * 64, 7),
        ("within", None, None),
        ("request", None, None),
    ]
