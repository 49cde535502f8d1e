"""Plex's HTTP API, as the web UI uses it. docs/plex-api.md says what was seen and assumed."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import requests
from plexapi.exceptions import NotFound, PlexApiException, Unauthorized
from plexapi.library import Library
from plexapi.server import PlexServer
from plexapi.settings import Settings

from shared.errors import AuthenticationError, PlexRefused, PlexUnreachable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from plexapi.library import LibrarySection

_SECONDS = 60
_TRASH = "autoEmptyTrash"


@dataclass(frozen=True)
class ApiSection:
    """A section as the running server has it."""

    number: int
    name: str
    folders: list[str]
    items: int
    """Number of items on the top level."""
    is_scanning: bool


class PlexApi:
    """A running server, with its owner's token, which is empty if it is not claimed.

    Raises:
        PlexUnreachable, AuthenticationError, PlexRefused: the constructor and every method do.
    """

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        with self._asked():
            self._session = requests.Session()
            self._session.trust_env = False  # there is no proxy within a pod
            self._server = PlexServer(url, token, session=self._session, timeout=_SECONDS)

    @property
    def version(self) -> str:
        """The version that the server reports."""
        return str(self._server.version)

    @property
    def machine_identifier(self) -> str:
        """The identity that clients know the server by."""
        return str(self._server.machineIdentifier)

    def sections(self) -> list[ApiSection]:
        """Return all sections."""
        with self._asked():
            return [_section(each) for each in self._all()]

    def section(self, number: int) -> ApiSection:
        """Return one section."""
        with self._asked():
            return _section(self._find(number))

    def sees(self, folder: str) -> bool:
        """Return whether Plex sees this folder."""
        try:
            with self._asked():
                return bool(self._server.isBrowsable(folder.rstrip("/")))
        except PlexRefused:  # the parent folder does not exist
            return False

    def set_folders(self, number: int, folders: Sequence[str]) -> None:
        """Set the folders of a section.

        python-plexapi's own ``edit`` refuses folders that do not exist, but an old one has to stay
        until the new one was scanned.
        """
        with self._asked():
            section = self._find(number)
            about = [("agent", section.agent), ("scanner", section.scanner)]
            about += [("language", section.language), *(("location", each) for each in folders)]
            route = f"/library/sections/{number}?{urlencode(about)}"
            self._server.query(route, method=self._session.put)
        found = self.section(number).folders
        if sorted(found) != sorted(folders):
            raise PlexRefused(
                f"Plex has the folders {', '.join(found)}, not the new ones: {', '.join(folders)}",
                path=self._url,
            )

    def scan(self, number: int) -> None:
        """Start a scan of a section's folders."""
        with self._asked():
            self._find(number).update()

    def empties_trash(self) -> bool:
        """Return whether Plex deletes items that a scan does not find."""
        with self._asked():
            settings = Settings(self._server, self._server.query(Settings.key))
            return bool(settings.get(_TRASH).value)

    def set_empties_trash(self, *, on: bool) -> None:
        """Switch automatic emptying of trash on or off."""
        with self._asked():
            route = f"/:/prefs?{urlencode({_TRASH: int(on)})}"
            self._server.query(route, method=self._session.put)
        if self.empties_trash() != on:
            raise PlexRefused(
                f"Plex did not switch {_TRASH} {'on' if on else 'off'}", path=self._url
            )

    def _all(self) -> list[LibrarySection]:
        """Return the current sections: python-plexapi caches what it has read once."""
        library = Library(self._server, self._server.query(Library.key))
        return list(library.sections())

    def _find(self, number: int) -> LibrarySection:
        for section in self._all():
            if section.key == number:
                return section
        raise NotFound(f"there is no library {number}")

    @contextmanager
    def _asked(self) -> Iterator[None]:
        try:
            yield
        except requests.RequestException as error:
            raise PlexUnreachable(
                f"Plex did not answer ({type(error).__name__})",
                path=self._url,
                hint="Does it run, and is this where it listens? See --plex-url.",
            ) from error
        except Unauthorized as error:
            raise AuthenticationError(
                "Plex does not accept the token in its Preferences.xml",
                path=self._url,
                hint="Is the server claimed, and is this its volume?",
            ) from error
        except PlexApiException as error:
            said = str(error).partition(";")[0]
            raise PlexRefused(f"Plex refused ({said})", path=self._url) from error


def _section(section: LibrarySection) -> ApiSection:
    return ApiSection(
        number=int(section.key),
        name=str(section.title),
        folders=list(section.locations),
        items=int(section.totalSize or 0),
        is_scanning=bool(section.refreshing),
    )
