"""The agent's page as a browser without JavaScript sees it, and its events as curl gets them."""

from __future__ import annotations

import json
import re
import subprocess
from contextlib import closing
from dataclasses import dataclass
from html import unescape
from http.cookies import SimpleCookie
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from shared.wire import protocol

if TYPE_CHECKING:
    from http.client import HTTPMessage

    from rig.programs import Agent

_TAG = re.compile(r"<[^>]*>")


@dataclass(frozen=True)
class Seen:
    """A response."""

    status: int
    headers: HTTPMessage
    html: str

    @property
    def text(self) -> str:
        """The words of the page."""
        return " ".join(unescape(_TAG.sub(" ", self.html)).split())


class Visitor:
    """Somebody with a browser, who keeps the cookies of one agent."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self.cookies: dict[str, str] = {}

    def open(self, path: str = "/", method: str = "GET", **form: str) -> Seen:
        """Return the response for a path, or for a form that was sent there."""
        body = urlencode(form) if form else None
        headers = {"Content-Type": "application/x-www-form-urlencoded"} if form else {}
        if self.cookies:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        with closing(self._agent.connect()) as http:
            http.request(method, path, body, headers)
            response = http.getresponse()
            html = response.read().decode()
        for line in response.headers.get_all("Set-Cookie", []):
            for name, morsel in SimpleCookie(line).items():
                self.cookies.pop(name, None)
                if morsel.value:
                    self.cookies[name] = morsel.value
        return Seen(response.status, response.headers, html)

    def sign_in(self, token: str) -> Seen:
        """Send the form for the token."""
        return self.open("/sign-in", "POST", token=token)

    def csrf(self) -> str:
        """Return the token in the forms of the page."""
        return self.hidden("csrf")

    def hidden(self, name: str) -> str:
        """Return a hidden field of the page."""
        found = re.search(rf'name="{name}" value="(\w*)"', self.open().html)
        assert found is not None
        return found[1]


def events(agent: Agent, seconds: float, *headers: str) -> list[tuple[str, str, Any]]:
    """Return id, name and data of each event that curl gets in so many seconds."""
    token = f"Authorization: Bearer {agent.token}"
    options = [word for each in (token, *headers) for word in ("--header", each)]
    url = f"{agent.url}{protocol.EVENTS}"
    done = subprocess.run(
        ["curl", "-ksN", "--max-time", str(seconds), *options, url],
        check=False,
        capture_output=True,
        text=True,
    )
    found = []
    for block in done.stdout.replace("\r\n", "\n").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
        if "event" in fields:
            data = json.loads(fields["data"])
            found.append((fields.get("id", ""), fields["event"], data))
    return found


def last_move(agent: Agent) -> Any:  # noqa: ANN401 - JSON
    """Return the state of the move in the last event of the next two seconds."""
    return [data for _, name, data in events(agent, 2) if name == "move"][-1]
