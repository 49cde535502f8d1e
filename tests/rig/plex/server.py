"""A small HTTP server that speaks the parts of Plex's API that are used (docs/plex-api.md)."""

from __future__ import annotations

import base64
import os
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree as ET

MAINTENANCE = (
    '<Response code="503" title="Maintenance"'
    ' status="Plex Media Server is currently running database migrations."/>'
)
"""Recorded by users whose server migrated its database."""


@dataclass
class Section:
    """One section of a Plex library."""

    number: int
    name: str
    folders: list[str]
    items: int
    kind: str = "movie"
    scans: int = 0
    """How many more looks find it scanning."""


@dataclass
class FakePlex:
    """A server, which a test may change while it runs."""

    machine_identifier: str
    version: str = "1.40.1.8227-c0dd5a73e"
    token: str = ""
    sections: list[Section] = field(default_factory=list)
    empties_trash: bool = True
    is_migrating: bool = False
    looks: int = 3
    """How many looks a scan takes."""
    keeps_folders: bool = False
    """Answers that folders were set, and leaves them as they are."""
    loses: int = 0
    """Items that a library has less after each scan."""
    port: int = 0
    """To listen on; 0: any."""
    requests: list[str] = field(default_factory=list)
    trash_during: list[bool] = field(default_factory=list)
    """Whether it was emptied, at each change of folders and each scan."""
    fails: dict[str, int] = field(default_factory=dict)
    """Status instead of an answer, by method and route without its query."""

    def __enter__(self) -> Self:
        """Start serving."""
        plex = self

        class Handler(BaseHTTPRequestHandler):
            """Passes requests to the server."""

            def do_GET(self) -> None:
                """Answer a GET request."""
                plex.answer(self)

            def do_PUT(self) -> None:
                """Answer a PUT request."""
                plex.answer(self)

            def log_message(self, *_: object) -> None:
                """Log nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()

    def is_emptying(self) -> bool:
        """Return whether trash is currently emptied after each scan."""
        return self.empties_trash

    def changes(self) -> list[str]:
        """Return the requests that changed something or began a scan."""
        return [each for each in self.requests if each.startswith("PUT") or "/refresh" in each]

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Answer any request."""
        parts = urlsplit(request.path)
        query = parse_qs(parts.query)
        self.requests.append(f"{request.command} {request.path}")
        if (status := self.fails.get(f"{request.command} {parts.path}")) is not None:
            self._send(request, status, "<Response/>")
        elif self.is_migrating:
            self._send(request, 503, MAINTENANCE)
        elif parts.path == "/identity":
            self._container(request, claimed="1", **self._identity())
        elif self.token and request.headers.get("X-Plex-Token") != self.token:
            self._send(request, 401, "<html>Unauthorized</html>")
        else:
            self._route(request, parts.path, query)

    def _identity(self) -> dict[str, str]:
        return {"machineIdentifier": self.machine_identifier, "version": self.version}

    def _route(
        self, request: BaseHTTPRequestHandler, path: str, query: dict[str, list[str]]
    ) -> None:
        steps = path.strip("/").split("/")
        if path == "/":
            self._container(request, friendlyName="plex", **self._identity())
        elif path == "/library":
            self._container(request, identifier="com.plexapp.plugins.library")
        elif path == "/:/prefs":
            self._prefs(request, query)
        elif path == "/library/sections":
            self._container(request, *map(self._directory, self.sections))
        elif steps[:2] == ["services", "browse"]:
            self._browse(request, base64.b64decode(steps[2]).decode())
        elif steps[:2] == ["library", "sections"]:
            section = next(each for each in self.sections if each.number == int(steps[2]))
            self._section(request, section, steps[3:], query)
        else:
            self._send(request, 404, "<html>Not Found</html>")

    def _prefs(self, request: BaseHTTPRequestHandler, query: dict[str, list[str]]) -> None:
        if request.command == "PUT":
            self.empties_trash = query["autoEmptyTrash"] == ["1"]
            self._send(request, 200, "")
            return
        value = str(self.empties_trash).lower()
        setting = ET.Element(
            "Setting", id="autoEmptyTrash", type="bool", default="true", value=value
        )
        self._container(request, setting)

    def _browse(self, request: BaseHTTPRequestHandler, folder: str) -> None:
        if not os.path.isdir(folder):
            self._send(request, 404, "<html>Not Found</html>")
            return
        below = [os.path.join(folder, name) for name in sorted(os.listdir(folder))]
        paths = [
            ET.Element("Path", key="/services/browse/x", title=os.path.basename(each), path=each)
            for each in below
            if os.path.isdir(each)
        ]
        self._container(request, *paths)

    def _section(
        self,
        request: BaseHTTPRequestHandler,
        section: Section,
        steps: list[str],
        query: dict[str, list[str]],
    ) -> None:
        if request.command == "PUT":
            assert set(query) == {"agent", "scanner", "language", "location"}
            self.trash_during.append(self.empties_trash)
            if not self.keeps_folders:
                section.folders = query["location"]
            self._send(request, 200, "")
        elif steps == ["refresh"]:
            self.trash_during.append(self.empties_trash)
            section.scans, section.items = self.looks, section.items - self.loses
            self._send(request, 200, "")
        else:
            self._container(request, totalSize=str(section.items), offset="0")

    def _directory(self, section: Section) -> ET.Element:
        is_scanning = section.scans > 0
        section.scans = max(0, section.scans - 1)
        directory = ET.Element(
            "Directory",
            key=str(section.number),
            type=section.kind,
            title=section.name,
            agent="tv.plex.agents.movie",
            scanner="Plex Movie",
            language="en-US",
            refreshing=str(int(is_scanning)),
            createdAt="1400000000",
            updatedAt="1400000000",
        )
        for number, folder in enumerate(section.folders):
            ET.SubElement(directory, "Location", id=str(number), path=folder)
        return directory

    def _container(
        self, request: BaseHTTPRequestHandler, *elements: ET.Element, **attributes: str
    ) -> None:
        container = ET.Element("MediaContainer", {"size": str(len(elements))} | attributes)
        container.extend(elements)
        self._send(request, 200, ET.tostring(container, encoding="unicode"))

    def _send(self, request: BaseHTTPRequestHandler, status: int, text: str) -> None:
        body = text.encode()
        request.send_response(status)
        request.send_header("Content-Type", "text/xml;charset=utf-8")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)


def plex_of(receipt: dict[str, Any], **about: Any) -> FakePlex:  # noqa: ANN401 - of the dataclass
    """Return a server with the identity, version and sections of a receipt."""
    moved = receipt["plex"]
    sections = [
        Section(each["number"], each["name"], [f"/srv/media/{each['name']}"], each["items"])
        for each in moved["sections"]
    ]
    return FakePlex(moved["machine_identifier"], moved["version"], sections=sections, **about)
