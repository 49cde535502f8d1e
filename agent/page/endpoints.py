"""``/``: the page, its sign-in and its undo, and its style sheet and script."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import hdrs, web

from agent.server import conditions
from agent.server.bodies import read_form
from agent.server.sessions import CSRF
from shared.errors import ConfigurationError, CutoverRefused
from shared.wire import protocol
from shared.wire.pairing import parse_pairing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from agent.cutover.control import CutoverControl
    from agent.page.observer import Observer
    from agent.server.auth import Doorkeeper

_FOLDER = Path(__file__).parent / "templates"
_ASSETS = {
    protocol.PAGE_STYLE: ("page.css", "text/css"),
    protocol.PAGE_SCRIPT: ("page.js", "text/javascript"),
}
_CONFIRMATION = "undo"
"""What an administrator types to undo a move."""
_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:;"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class PageEndpoints:
    """The routes for a browser. ``door`` knows its session."""

    def __init__(self, door: Doorkeeper, observer: Observer, control: CutoverControl) -> None:
        self._door, self._observer, self._control = door, observer, control

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of this file."""
        return [
            web.get(protocol.PAGE, self.page),
            web.post(protocol.SIGN_IN, self.sign_in),
            web.post(protocol.SIGN_OUT, self.sign_out),
            web.post(protocol.PAGE_UNDO, self.undo),
            *(web.get(route, _asset(*each)) for route, each in _ASSETS.items()),
        ]

    async def page(self, request: web.Request) -> web.Response:
        """Return the page, or the form for the token."""
        if not self._door.has_session(request):
            return _sign_in()
        return await self._move(request)

    async def sign_in(self, request: web.Request) -> web.Response:
        """Begin a session for a browser that sends the token, or the whole pairing string."""
        token = _token((await read_form(request)).get("token", "").strip())
        if not await self._door.admits(request, token.encode()):
            return _sign_in("This token is not valid (any more).")
        response = _see_page()
        self._door.sessions.begin(response)
        return response

    async def sign_out(self, request: web.Request) -> web.Response:
        """End the session of the browser."""
        await self._form(request)
        response = _see_page()
        self._door.sessions.end(response)
        return response

    async def undo(self, request: web.Request) -> web.Response:
        """Undo the move, before or after its commit, if its administrator has confirmed that."""
        form = await self._form(request)
        if form.get("confirmation", "").strip().lower() != _CONFIRMATION:
            return await self._move(request, f"Nothing was undone: type {_CONFIRMATION}.", 400)
        lift = asyncio.to_thread(self._control.lift, "asked for on the page", committed=True)
        try:
            await asyncio.shield(lift)
            self._observer.forget()
        except CutoverRefused as error:
            return await self._move(request, f"{error.what}. {error.hint}", 409)
        return _see_page()

    async def _move(self, request: web.Request, error: str = "", status: int = 200) -> web.Response:
        # jinja2 takes 5 MiB, which only those pay who look at the page.
        from agent.page.render import Viewer, move_page  # noqa: PLC0415

        viewer = Viewer(self._door.sessions.csrf_token(request), error)
        return _html(move_page(await self._observer.look(), viewer), status)

    async def _form(self, request: web.Request) -> dict[str, str]:
        """Return the form that a page of this session has sent.

        Raises:
            HTTPForbidden: There is no session, or another page has sent it.
        """
        form = await read_form(request) if self._door.has_session(request) else {}
        if not self._door.sessions.is_csrf_token(request, form.get(CSRF, "")):
            raise web.HTTPForbidden(reason="the form is not from this session: load the page again")
        return form


def _token(text: str) -> str:
    """Return the token in a pairing string, or the text itself."""
    try:
        return parse_pairing(text).token
    except ConfigurationError:
        return text


def _sign_in(error: str = "") -> web.Response:
    from agent.page.render import sign_in_page  # noqa: PLC0415

    response = _html(sign_in_page(error), 401)
    # RFC 9110 section 15.5.2 wants a challenge. Browsers ask their user for Basic, not for this.
    response.headers[hdrs.WWW_AUTHENTICATE] = 'Bearer realm="plexodus"'
    return response


def _see_page() -> web.Response:
    return web.Response(status=303, headers={hdrs.LOCATION: protocol.PAGE})


def _html(text: str, status: int) -> web.Response:
    return web.Response(text=text, status=status, content_type="text/html", headers=_HEADERS)


def _asset(name: str, kind: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Return the handler of a file, which changes only with the agent's version."""
    content = (_FOLDER / name).read_bytes()
    tag = hashlib.sha256(content).hexdigest()

    async def send(request: web.Request) -> web.StreamResponse:
        response = conditions.begin(request, tag)
        response.headers.update(_HEADERS)
        response.headers[hdrs.CONTENT_TYPE] = f"{kind}; charset=utf-8"
        part = conditions.select(response, conditions.asked_range(request, tag), len(content))
        await response.prepare(request)
        if request.method != hdrs.METH_HEAD:
            await response.write(content[part.start : part.stop])
        await response.write_eof()
        return response

    return send
