"""Plex's ``Preferences.xml``: one element, all of whose content is in its attributes."""

from __future__ import annotations

import os
from xml.etree import ElementTree as ET

from shared.plex.library import PREFERENCES
from shared.regular_file import open_regular

_MAX_BYTES = 4 * 1024 * 1024
"""Plex writes a few KiB."""


def read_preferences(server: str) -> dict[str, str]:
    """The preferences of the server whose own folder is at ``server``.

    Raises:
        OSError: the file is not there, may not be read, or is something else, such as a FIFO.
        ValueError: it is empty, far too large, or no XML.
    """
    path = os.path.join(server, PREFERENCES)
    with os.fdopen(open_regular(path, follow_symlinks=True), "rb") as file:
        content = file.read(_MAX_BYTES + 1)
    if not content:
        raise ValueError("is empty")
    if len(content) > _MAX_BYTES:
        raise ValueError(f"is larger than {_MAX_BYTES} bytes")
    try:
        return dict(ET.fromstring(content).attrib)  # noqa: S314 - the administrator's own file
    except ET.ParseError as error:
        raise ValueError(f"is no XML ({error})") from error
