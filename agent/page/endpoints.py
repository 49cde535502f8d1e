"""``/``: the page, its sign-in and its undo, and its style sheet and script."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import hdrs, web

from agent.server import conditions
from agent.server.bodies import read_form
from agent.server.problems import UNEVENTFUL
from agent.server.sessions import CSRF
from shared.errors import ConfigurationError, CutoverRefused, PlexodusError
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
_OK = 200
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
        self._undoing = asyncio.Lock()

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of this file."""
        forms = {
            protocol.SIGN_IN: self.sign_in,
            protocol.SIGN_OUT: self.sign_out,
            protocol.PAGE_UNDO: self.undo,
        }
        return [
            web.get(protocol.PAGE, self.page),
            *(web.post(route, handler) for route, handler in forms.items()),
            # A browser asks for them when its user loads the answer to a form again.
            *(web.get(route, _back) for route in forms),
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
        await asyncio.to_thread(self._door.sessions.begin, request, response)
        return response

    async def sign_out(self, request: web.Request) -> web.Response:
        """Have the browser forget its session."""
        if await self._form(request) is None:
            return _foreign_form()
        response = _see_page()
        self._door.sessions.end(response)
        return response

    async def undo(self, request: web.Request) -> web.Response:
        """Undo the move that the page showed, if its administrator has confirmed that."""
        form = await self._form(request)
        if form is None:
            return _foreign_form()
        if form.get("confirmation", "").strip().lower() != _CONFIRMATION:
            return await self._move(request, f"Nothing was undone: type {_CONFIRMATION}.", 400)
        if self._undoing.locked():
            return await self._move(request, "An undo is under way.", 409)
        async with self._undoing:
            if not await asyncio.to_thread(self._is_current, form.get("cutover", "")):
                self._observer.forget()
                about = "Nothing was undone: another cutover is under way than the page showed."
                return await self._move(request, about, 409)
            lift = asyncio.to_thread(self._control.lift, "asked for on the page", committed=True)
            try:
                await asyncio.shield(lift)
            except CutoverRefused as error:
                return await self._move(request, f"{error.what}. {error.hint}", 409)
            finally:
                self._observer.forget()
        return _see_page()

    def _is_current(self, cutover: str) -> bool:
        return self._control.standing().id == cutover

    async def _move(self, request: web.Request, error: str = "", status: int = 200) -> web.Response:
        # jinja2 takes 5 MiB, which only those pay who look at the page.
        from agent.page.render import Viewer, move_page, trouble_page  # noqa: PLC0415

        viewer = Viewer(self._door.sessions.csrf_token(request), error)
        try:
            seen = await self._observer.look()
        except (PlexodusError, OSError) as failure:
            return _html(trouble_page(f"The state of the move cannot be read: {failure}"), 507)
        response = _html(move_page(seen, viewer), status)
        response[UNEVENTFUL] = status == _OK
        return response

    async def _form(self, request: web.Request) -> dict[str, str] | None:
        """Return the form that a page of this session has sent; None if it is another one."""
        if not self._door.has_session(request):
            return None
        form = await read_form(request)
        return form if self._door.sessions.is_csrf_token(request, form.get(CSRF, "")) else None


async def _back(_request: web.Request) -> web.StreamResponse:
    return _see_page()


def _token(text: str) -> str:
    """Return the token in a pairing string, or the text itself."""
    try:
        return parse_pairing(text).token
    except ConfigurationError:
        return text


def _foreign_form() -> web.Response:
    return _sign_in("The form is not from this session. Sign in, or load the page again.", 403)


def _sign_in(error: str = "", status: int = 401) -> web.Response:
    from agent.page.render import sign_in_page  # noqa: PLC0415

    response = _html(sign_in_page(error), status)
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
