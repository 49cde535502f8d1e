"""The agent's page without a browser: who sees it, what it says, and what it can do."""

from __future__ import annotations

import base64
import json
import re
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography.fernet import Fernet
from rig.page import Visitor, last_move
from rig.plex.commands import SERVER, PlexCommands, agent_with_plex, plex_commands
from rig.programs import Puller, program

from agent import page
from agent.server.auth import TokenFile
from agent.server.sessions import COOKIE, Sessions
from shared.wire import protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rig.programs import Agent

TEMPLATES = Path(page.__file__).parent / "templates"
MOST_BYTES = 60_000
DAY = 24 * 3600


@pytest.fixture
def visitor(agent: Agent) -> Visitor:
    """Return a visitor who has signed in."""
    visitor = Visitor(agent)
    assert visitor.sign_in(agent.pairing).status == 303
    return visitor


@pytest.fixture
def plex(tmp_path: Path, plex_library: Path) -> Iterator[PlexCommands]:
    """Start a Plex that runs and writes."""
    with plex_commands(tmp_path / "plex", plex_library / SERVER) as plex:
        yield plex


@pytest.fixture
def plex_agent(
    new_agent: Callable[[Path], Agent], plex_library: Path, plex: PlexCommands, tmp_path: Path
) -> Agent:
    """Start an agent that can stop and start that Plex."""
    return agent_with_plex(new_agent, plex_library, plex.settings(tmp_path))


@pytest.fixture
def moved(plex_agent: Agent, plex: PlexCommands, target: Path, tmp_path: Path) -> Visitor:
    """Return a visitor who has signed in, after a move."""
    done = Puller(target, tmp_path / "puller.log", plex_agent.pairing, cutover=True).pull()
    assert done.code == 0, done.text
    assert not plex.is_running()
    visitor = Visitor(plex_agent)
    visitor.sign_in(plex_agent.token)
    return visitor


def test_stranger_sees_only_the_form(agent: Agent) -> None:
    """Without a session there is nothing of the library, and no dialog of the browser's own."""
    seen = Visitor(agent).open()
    assert seen.status == 401
    assert seen.headers["WWW-Authenticate"].startswith("Bearer")
    assert "Basic" not in seen.headers["WWW-Authenticate"]
    assert str(agent.library) not in seen.html
    assert seen.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in seen.headers["Content-Security-Policy"]
    assert "unsafe" not in seen.headers["Content-Security-Policy"]
    assert seen.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("what", ["pairing", "token"])
def test_sign_in(agent: Agent, what: str) -> None:
    """The pairing string and its token open the page; the cookie is out of reach of scripts."""
    visitor = Visitor(agent)
    seen = visitor.sign_in(f" {getattr(agent, what)}\n")
    assert seen.status == 303
    cookie = seen.headers["Set-Cookie"]
    assert {"HttpOnly", "Secure", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
    assert agent.token not in cookie
    assert str(agent.library) in visitor.open().html


@pytest.mark.parametrize(
    "token", ["", "wrong", "plexodus://wrong@127.0.0.1:1", "\ud83c", "é" * 999]
)
def test_wrong_token_opens_nothing(agent: Agent, token: str) -> None:
    """A wrong token gets the form again, and is counted like that of a puller."""
    visitor = Visitor(agent)
    seen = visitor.sign_in(token.encode("utf-8", "replace").decode())
    assert seen.status == 401
    assert "not valid" in seen.text
    assert not visitor.cookies
    assert b"wrong_tokens_total 1.0" in agent.get(protocol.METRICS)


def test_guesses_are_slowed(agent: Agent) -> None:
    """From the fourth wrong token of an address on, an answer takes longer each time."""
    visitor = Visitor(agent)
    for _ in range(4):
        visitor.sign_in("wrong")
    started = time.monotonic()
    visitor.sign_in("wrong")
    assert time.monotonic() - started > 0.4


def test_session_outlives_the_agent_and_not_the_pairing(agent: Agent, visitor: Visitor) -> None:
    """A restart of the agent ends no session, a new pairing ends all of them."""
    agent.kill()
    agent.start()
    assert visitor.open().status == 200
    agent.pair()
    assert visitor.open().status == 401


def test_old_and_forged_sessions_open_nothing(agent: Agent, visitor: Visitor) -> None:
    """A cookie that has expired, is another client's, or was changed by others, is no session."""
    valid = visitor.cookies[COOKIE]
    state = str(agent.state)
    key = Sessions(state, TokenFile(state))._key()
    old = Fernet(key).encrypt_at_time(b"127.0.0.1", int(time.time()) - DAY).decode()
    elsewhere = Fernet(key).encrypt(b"192.0.2.1").decode()
    forged = Fernet(Fernet.generate_key()).encrypt(b"127.0.0.1").decode()
    for cookie in (old, elsewhere, forged, valid[:-6] + "AAAA==", "", "é"):
        visitor.cookies[COOKIE] = cookie.encode("latin-1", "replace").decode("latin-1")
        assert visitor.open().status == 401, cookie
    visitor.cookies[COOKIE] = valid
    assert visitor.open().status == 200


def test_session_reads_and_changes_nothing(agent: Agent, visitor: Visitor) -> None:
    """Only events and log are open to a session: no form of another site moves or stops Plex."""
    assert visitor.open(protocol.LOG).status == 200
    for method, path in (
        ("GET", protocol.LIBRARY),
        ("GET", protocol.METRICS),
        ("POST", protocol.CUTOVER),
        ("POST", protocol.SNAPSHOTS),
        ("POST", protocol.LOG),
        ("PUT", protocol.TARGET_CHECKS),
    ):
        assert visitor.open(path, method).status == 401, path
    assert "POST /v1/cutover" in agent.requests()


@pytest.mark.parametrize("csrf", ["", "0" * 64, "é"])
@pytest.mark.parametrize("path", ["/undo", "/sign-out"])
def test_form_of_another_site_is_refused(visitor: Visitor, path: str, csrf: str) -> None:
    """Without the session's own token, a form does nothing."""
    seen = visitor.open(path, "POST", confirmation="undo", csrf=csrf)
    assert seen.status == 403
    assert visitor.open().status == 200


def test_sign_out(agent: Agent, visitor: Visitor) -> None:
    """After it the browser has no cookie, and sees the form."""
    csrf = visitor.csrf()
    assert Visitor(agent).open("/sign-out", "POST", csrf=csrf).status == 403
    assert visitor.open("/sign-out", "POST", csrf=csrf).status == 303
    assert not visitor.cookies
    assert visitor.open().status == 401


def test_move_on_the_page(moved: Visitor, plex_agent: Agent) -> None:
    """After a move, each step but the last has its time, and the page says how to undo it."""
    seen = moved.open()
    assert seen.status == 200
    state = last_move(plex_agent)
    steps = {each["id"]: each for each in state["steps"]}
    done = [name for name, step in steps.items() if step["stage"] == "done"]
    assert done == list(steps)[:-1]
    assert all(steps[name]["at"] for name in done)
    assert steps["started"]["stage"] == "next"
    assert state["cutover"]["phase"] == "committed"
    assert state["plex_on_vm"] == "is stopped"
    assert state["downtime"]["seconds"] is not None
    assert {each["check"]["name"] for each in state["checks"]["target"]} >= {"filesystem"}
    assert {each["check"]["name"] for each in state["checks"]["source"]} >= {"library database"}
    for words in (
        "Committed done",
        "An undo would lift the fence",
        "none for a Plex without a unit: the agent stops it whenever it is started",
        "Committed snapshot",
    ):
        assert words in seen.text


def test_undo_on_the_page(moved: Visitor, plex_agent: Agent, plex: PlexCommands) -> None:
    """Only the typed word undoes a move that is committed; Plex runs then."""
    csrf, cutover = moved.csrf(), moved.hidden("cutover")
    refused = moved.open("/undo", "POST", csrf=csrf, cutover=cutover, confirmation="yes")
    assert refused.status == 400
    assert "Nothing was undone" in refused.text
    other = moved.open("/undo", "POST", csrf=csrf, cutover="0" * 32, confirmation="undo")
    assert other.status == 409
    assert "another cutover is under way" in other.text
    assert not plex.is_running()
    done = moved.open("/undo", "POST", csrf=csrf, cutover=cutover, confirmation=" Undo ")
    assert done.status == 303
    plex.wait_until(running=True)
    deadline = time.monotonic() + 20
    while last_move(plex_agent)["cutover"]["phase"] != "idle":
        assert time.monotonic() < deadline
    seen = moved.open()
    assert "There is nothing to undo." in seen.text
    assert 'class="danger" hidden' in seen.html
    assert "Undoing the cutover: asked for on the page" in seen.text


def test_undo_that_fails_says_why(moved: Visitor, plex: PlexCommands) -> None:
    """If Plex does not start, the page has the reason."""
    (plex.here / "broken").touch()
    form = {"csrf": moved.csrf(), "cutover": moved.hidden("cutover"), "confirmation": "undo"}
    seen = moved.open("/undo", "POST", **form)
    assert seen.status == 409
    assert "it is broken" in seen.text
    (plex.here / "broken").unlink()


def test_words_of_others_are_no_markup(agent: Agent, visitor: Visitor) -> None:
    """A log line with markup is text on the page."""
    about = "<script>alert(1)</script> & \"'"
    event = protocol.PullerEvent("failed", about)
    body = json.dumps({"event": event.event, "about": event.about}).encode()
    agent.ask("POST", protocol.LOG, body)
    seen = visitor.open()
    assert "<script>alert" not in seen.html
    assert about in seen.text


def test_preflight_of_both_sides_is_shown(agent: Agent, visitor: Visitor, target: Path) -> None:
    """The results of a preflight are on the page with what to do, also after a restart."""
    paired = {"PLEXODUS_PAIRING": agent.pairing}
    preflight = ("plexodus-puller", "preflight", "--target", target)
    done = program(*preflight, check=False, environment=paired)
    assert "On the VM" in done.stdout, done.stderr
    agent.kill()
    agent.start()
    state = last_move(agent)
    for side in ("source", "target"):
        checks = [each["check"] for each in state["checks"][side]]
        assert checks
        seen = visitor.open().text
        for check in checks:
            assert check["name"] in seen
            assert " ".join(check["advice"].split()) in seen


def test_page_is_small(agent: Agent, visitor: Visitor) -> None:
    """Page, style sheet and script are less than 60 KB, and ask no other host for anything."""
    event = json.dumps({"event": "failed", "about": "&" * protocol.MAX_ABOUT}).encode()
    for _ in range(100):
        agent.ask("POST", protocol.LOG, event)
    checks = [{"name": f"check {n}", "outcome": "failure", "found": "f" * 200} for n in range(40)]
    agent.ask("PUT", protocol.TARGET_CHECKS, json.dumps({"checks": checks}).encode())
    seen = visitor.open()
    assert "check 39" in seen.text
    assets = [(TEMPLATES / name).read_text() for name in ("page.css", "page.js")]
    assert len(seen.html.encode()) + sum(len(each.encode()) for each in assets) < MOST_BYTES
    assert not re.search(r"https?://|//\w", seen.html + assets[0])
    assert " style=" not in seen.html
    assert " on" not in re.findall(r"<\w+( on\w+=)", seen.html)


@pytest.mark.parametrize("path", ["/page.css", "/page.js"])
def test_assets_are_sent_once(agent: Agent, path: str) -> None:
    """A browser that has a file of this version gets 304."""
    with closing(agent.connect()) as http:
        http.request("GET", path)
        response = http.getresponse()
        assert response.read() == (TEMPLATES / path.strip("/")).read_bytes()
        http.request("GET", path, headers={"If-None-Match": response.headers["ETag"]})
        again = http.getresponse()
        assert (again.status, again.read()) == (304, b"")


def test_log_that_was_cut_or_damaged(agent: Agent, visitor: Visitor, puller: Puller) -> None:
    """A log that is shorter than before, and lines of others in it, break neither page nor move."""
    assert puller.pull().code == 0
    assert "Published" in visitor.open().text
    path = agent.state / "migration.jsonl"
    path.write_bytes(b'{"at":"yesterday","event":"pull","about":"a"}\nnonsense\n')
    (agent.state / "checks.json").write_bytes(b"\xff")
    body = json.dumps({"event": "pass", "about": "what comes then"}).encode()
    agent.ask("POST", protocol.LOG, body)
    time.sleep(1)
    seen = visitor.open()
    assert seen.status == 200
    assert "what comes then" in seen.text
    checks = {"checks": [{"name": "a check", "outcome": "pass", "found": "f"}]}
    agent.ask("PUT", protocol.TARGET_CHECKS, json.dumps(checks).encode())
    time.sleep(1)
    assert "a check" in visitor.open().text


def test_record_that_cannot_be_read(agent: Agent, visitor: Visitor) -> None:
    """The page says so in words, and a stream does not pretend to know."""
    (agent.state / "cutover.json").write_text("{")
    seen = visitor.open()
    assert seen.status == 507
    assert "cannot be read" in seen.text


def test_preflight_replaces_what_was_corrected(agent: Agent) -> None:
    """A check that only a bad volume has is gone after a preflight of a good one."""

    def put(name: str, *, are_all: bool) -> None:
        checks = [{"name": name, "outcome": "failure", "found": "f"}]
        body = json.dumps({"checks": checks, "are_all": are_all}).encode()
        agent.ask("PUT", protocol.TARGET_CHECKS, body)

    def shown() -> set[str]:
        return {each["check"]["name"] for each in last_move(agent)["checks"]["target"]}

    put("volume: locks", are_all=True)
    put("filesystem", are_all=False)
    assert shown() == {"volume: locks", "filesystem"}
    put("volume", are_all=True)
    assert shown() == {"volume"}


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_request_of_another_site_is_refused(agent: Agent, visitor: Visitor, site: str) -> None:
    """A request that another site or port causes does nothing, even with the token or session."""
    token = base64.b64encode(f"x:{agent.token}".encode()).decode()
    csrf = visitor.csrf()
    for path in (protocol.LOG, protocol.CUTOVER, protocol.PAGE_UNDO, protocol.SIGN_IN):
        with closing(agent.connect()) as http:
            headers = {"Sec-Fetch-Site": site, "Authorization": f"Basic {token}"}
            headers["Cookie"] = f"{COOKIE}={visitor.cookies[COOKIE]}"
            http.request("POST", path, f"csrf={csrf}&confirmation=undo", headers)
            assert http.getresponse().status == 403, path
    with closing(agent.connect()) as http:
        http.request("GET", "/", headers={"Sec-Fetch-Site": site})
        assert http.getresponse().status == 401  # a link to the page is allowed
        http.close()
        http.request("GET", protocol.LOG, headers={"Sec-Fetch-Site": "same-origin"})
        assert "Basic" not in http.getresponse().headers["WWW-Authenticate"]


@pytest.mark.parametrize("path", ["/undo", "/sign-in", "/sign-out"])
def test_answer_to_a_form_that_is_loaded_again(visitor: Visitor, path: str) -> None:
    """A browser is led back to the page."""
    seen = visitor.open(path)
    assert (seen.status, seen.headers["Location"]) == (303, "/")


def test_frame_that_does_not_exist(agent: Agent, visitor: Visitor) -> None:
    """A request for one changes nothing that the page shows."""
    snapshot = agent.scan()
    path = protocol.frame_path(snapshot.id, snapshot.frames, "tar")
    with closing(agent.connect()) as http:
        http.request("GET", path, headers={"Authorization": f"Bearer {agent.token}"})
        assert http.getresponse().status == 404
    assert last_move(agent)["transfer"]["requested"] == 0
    assert visitor.open().status == 200
