"""Plex' ``Preferences.xml``: one element, all of whose content is in its attributes."""

from __future__ import annotations

import os
from xml.etree import ElementTree as ET

from shared.plexlibrary import PREFERENCES


def read_preferences(server: str) -> dict[str, str]:
    """The preferences of the server whose own folder is at ``server``.

    Raises:
        OSError: the file is not there, or may not be read.
        ValueError: it is empty, or no XML.
    """
    with open(os.path.join(server, PREFERENCES), "rb") as file:
        content = file.read()
    if not content:
        raise ValueError("is empty")
    try:
        return dict(ET.fromstring(content).attrib)  # noqa: S314 - the administrator's own file
    except ET.ParseError as error:
        raise ValueError(f"is no XML ({error})") from error
