"""The agent's page, as a browser without JavaScript sees it: forms, cookies, redirects."""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import dataclass
from html import unescape
from http.cookies import SimpleCookie
from typing import TYPE_CHECKING
from urllib.parse import urlencode

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
