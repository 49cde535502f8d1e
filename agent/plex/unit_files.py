"""The conditions in a unit's drop-ins as systemd applies them: systemd.unit(5), systemd.syntax(7).

Drop-ins are read one after the other. Only the section ``[Unit]`` has conditions. An empty
assignment of any condition removes all earlier ones, and of any assertion all earlier assertions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_KINDS = ("Condition", "Assert")
"""Beginnings of names. systemd skips a start for the first, and lets it fail for the second."""


def is_fenced(drop_ins: Sequence[str], path: str) -> bool:
    """Return whether the unit is not started while the file ``path`` exists.

    Args:
        drop_ins: the paths of the unit's drop-ins, in the order in which systemd reads them.
        path: path of the fence.
    """
    fenced = set[str]()
    for drop_in in drop_ins:
        try:
            with open(drop_in, encoding="utf-8", errors="replace") as file:
                settings = list(_of_unit(_lines(file)))
        except OSError:
            continue  # the package's drop-in is readable, so this is another one
        for name, value in settings:
            for kind in _KINDS:
                if name.startswith(kind) and not value:
                    fenced.discard(kind)
                elif (name, value) == (f"{kind}PathExists", f"!{path}"):
                    fenced.add(kind)
    return bool(fenced)


def _of_unit(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield name and value of each setting in the section ``[Unit]``, without spaces around."""
    section = ""
    for line in lines:
        if line.startswith("["):
            section = line
        elif section == "[Unit]":
            name, equals, value = line.partition("=")
            if equals:
                yield name.strip(), value.strip()


def _lines(file: Iterable[str]) -> Iterator[str]:
    """Yield the lines without comments and empty ones. A backslash continues a line."""
    begun = ""
    for line in file:
        text = line.strip()
        if text.startswith(("#", ";")) or not (text or begun):
            continue
        if (len(text) - len(text.rstrip("\\"))) % 2:
            begun += f"{text[:-1]} "
            continue
        yield f"{begun}{text}"
        begun = ""
    if begun:
        yield begun
