"""Plex's ``Preferences.xml``: one element with a preference in each attribute."""

from __future__ import annotations

import os
from xml.etree import ElementTree as ET

from shared.plex.library import PREFERENCES
from shared.regular_file import open_regular

_MAX_BYTES = 4 * 1024 * 1024
"""Largest accepted file. Plex writes a few KiB."""


def read_preferences(server: str) -> dict[str, str]:
    """Return the preferences of the Plex server with the folder ``server``.

    Raises:
        OSError: The file is missing, unreadable, or not a regular file.
        ValueError: The file is empty, larger than 4 MiB, or not XML.
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
        raise ValueError(f"is not valid XML ({error})") from error
