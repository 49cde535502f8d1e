"""Versions of Plex Media Server, as spelled in packages, logs, ``/identity`` and image tags."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_VERSION = re.compile(r"v?(\d+)\.(\d+)\.(\d+)\.(\d+)(?:-([0-9a-f]{6,}))?")


@dataclass(frozen=True, order=True)
class PlexVersion:
    """A version, ordered by its four numbers. The build's hash does not affect the order."""

    numbers: tuple[int, int, int, int]
    build: str = field(default="", compare=False)

    def __str__(self) -> str:
        """Return the version as an image tag spells it."""
        text = ".".join(map(str, self.numbers))
        return f"{text}-{self.build}" if self.build else text


def find_version(text: str) -> PlexVersion | None:
    """Return the first version in ``text``, such as a log line or a tag; None without one."""
    found = _VERSION.search(text)
    if found is None:
        return None
    one, two, three, four = (int(number) for number in found.groups()[:4])
    return PlexVersion((one, two, three, four), found[5] or "")
