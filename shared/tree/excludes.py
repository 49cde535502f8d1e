"""Patterns of entries that the user leaves out."""

from __future__ import annotations

import fnmatch
import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def matcher(patterns: tuple[str, ...]) -> Callable[[bytes, bytes], object] | None:
    """Return a function that tells whether an entry is left out, or None without patterns.

    The function takes the entry's path, library name first, and the entry's last name.

    A pattern with a slash, even a leading one, is matched against the whole path below the library.
    A pattern without a slash is matched against each single name. Wildcards are those of
    :mod:`fnmatch`, so ``*`` also matches slashes. Everything below a folder that is left out is
    left out, too.
    """
    whole = [p.strip("/") for p in patterns if "/" in p.rstrip("/")]
    names = [p.strip("/") for p in patterns if "/" not in p.rstrip("/")]
    if not whole and not names:
        return None

    def compiled(globs: list[str]) -> re.Pattern[bytes]:
        either = "|".join(fnmatch.translate(glob) for glob in globs) or "(?!)"
        return re.compile(os.fsencode(either))

    whole_re, name_re = compiled(whole), compiled(names)

    def is_excluded(path: bytes, name: bytes) -> object:
        return name_re.match(name) or (whole and whole_re.match(path.partition(b"/")[2]))

    return is_excluded


def ends_of(patterns: tuple[str, ...]) -> list[tuple[bool, bytes, bytes]]:
    """Return how whatever :func:`matcher` finds begins and ends, for each pattern.

    The first value tells whether that is the path below the library, or the last name. More may
    begin and end so: what is between wildcards is not looked at.
    """
    ends = []
    for pattern in patterns:
        glob = pattern.strip("/")
        head, tail = re.split(r"[*?\[]", glob, maxsplit=1)[0], re.split(r"[*?\]]", glob)[-1]
        ends.append(("/" in pattern.rstrip("/"), os.fsencode(head), os.fsencode(tail)))
    return ends
