"""Log lines: what looks like a secret is masked, others' words stay on one line of some length."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
import structlog

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
}


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Logging as before, when a test has configured it."""
    root, before = logging.getLogger(), logging.getLogger().handlers[:]
    yield
    root.handlers = before
    structlog.reset_defaults()


@pytest.mark.parametrize("text", RENDERINGS.values(), ids=RENDERINGS.keys())
def test_token_is_masked_in_each_rendering(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """In a value, in a list, in a key, in the event, and in the text of an exception."""
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
    """What an administrator has to read stays readable."""
    digest = hashlib.sha256(b"").hexdigest()
    for text in (
        f"/v1/snapshots/{digest}/frames/17.tar.zst",
        f"Metadata/Movies/0/{digest[:39]}.bundle/Contents/_combined/posters/com.plexapp.agents",
        "Library/Application Support/Plex Media Server/Plug-in Support/Databases",
    ):
        assert logs.without_secrets(text) == text


def test_hostile_words_stay_on_one_short_line(capsys: pytest.CaptureFixture[str]) -> None:
    """No terminal escape, no forged line, and a length that a journal can hold."""
    logs.configure()
    words = "\x1b]0;title\x07\x9b31m\u202egnp\r" + "long " * 100_000
    structlog.get_logger("test").warning("event", said=words, paths=[words])
    told = capsys.readouterr().err
    assert told.endswith("\n")
    assert told[:-1].isprintable()
    assert len(told) < 3 * logs.MAX_VALUE
    assert "(cut)" in json.loads(told)["said"]


def test_secret_where_a_value_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    """No half of a token is left at the end of what is kept."""
    logs.configure()
    for before in range(logs.MAX_VALUE - 60, logs.MAX_VALUE + 10, 7):
        structlog.get_logger("test").warning("event", said="." * before + " " + TOKEN)
        assert TOKEN[:8] not in capsys.readouterr().err


def test_library_that_logs_too_much(capsys: pytest.CaptureFixture[str]) -> None:
    """A burst passes, the rest is counted; nothing goes past our own format."""
    logs.configure()
    for number in range(1000):
        logging.getLogger("asyncio").warning("socket.send() raised exception %d", number)
    told = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert 0 < len(told) < 100
    assert told[0]["library"] == "asyncio"


def test_lines_are_earned_again() -> None:
    """After a burst one line passes for each second, and says how many did not."""
    limit = logs.LogLimit(burst=3, seconds=1.0)
    assert [limit.admit(10.0) for _ in range(5)] == [0, 0, 0, None, None]
    assert [limit.admit(11.0), limit.admit(11.5), limit.admit(12.0)] == [2, None, 1]
    assert [limit.admit(100.0) for _ in range(4)] == [0, 0, 0, None]
