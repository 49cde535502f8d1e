"""Preferences that the user wants changed before Plex's first start on the volume."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET
from xml.sax.saxutils import quoteattr

from shared.errors import ConfigurationError, IntegrityError
from shared.plex.library import PREFERENCES, server_folder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_IDENTITY = (
    "MachineIdentifier",
    "ProcessedMachineIdentifier",
    "AnonymousMachineIdentifier",
    "CertificateUUID",
    "PlexOnlineToken",
)
"""The preferences that are the server's identity."""


def parse_preferences(settings: Sequence[str]) -> dict[str, str]:
    """Parse ``NAME=VALUE`` settings; the last one of a name counts.

    Raises:
        ConfigurationError: a setting has another form, or would change the server's identity.
    """
    found = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not _NAME.fullmatch(name) or not value.isprintable():
            raise ConfigurationError(f"not a preference of the form NAME=VALUE: {setting!r}")
        if name in _IDENTITY:
            raise ConfigurationError(f"{name} is the server's identity and is not changed")
        found[name] = value
    return found


def preferences_name(library: str) -> str:
    """Return the path of the preferences in the library of this name.

    Raise ConfigurationError if the library is not Plex's.
    """
    server = server_folder(library)
    if server is None:
        raise ConfigurationError(
            "preferences can only be set in a library of Plex, and this is not one", path=library
        )
    return f"{server}/{PREFERENCES}"


def with_preferences(content: bytes, settings: Mapping[str, str]) -> bytes:
    """Return ``Preferences.xml`` with these attributes; every other byte stays as it was.

    Raises:
        IntegrityError: the content is not one element with attributes, in UTF-8.
    """
    try:
        text = content.decode()
        for name, value in settings.items():
            attribute = f" {name}={quoteattr(value)}".replace("\\", r"\\")
            text, count = re.subn(rf"""\s{name}=(?:"[^"]*"|'[^']*')""", attribute, text)
            if not count:
                text = re.sub(r"<Preferences\b", rf"\g<0>{attribute}", text, count=1)
        found = ET.fromstring(text).attrib  # noqa: S314 - verified, of the paired agent
    except (UnicodeError, ET.ParseError) as error:
        raise IntegrityError(f"they cannot be read ({error})", path=PREFERENCES) from error
    if any(found.get(name) != value for name, value in settings.items()):
        raise IntegrityError("the preferences are not what Plex writes", path=PREFERENCES)
    return text.encode()
