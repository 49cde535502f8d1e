"""What the user wants left out, by patterns."""

from __future__ import annotations

import fnmatch
import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def matcher(patterns: tuple[str, ...]) -> Callable[[bytes, bytes], object] | None:
    """A test of whether a path, library name first, with its last name, is to be left out.

    None if none ever is.

    A pattern with a slash, be it the first letter, is matched against the whole path below the
    library; one without, against every single name. Wildcards as in :mod:`fnmatch`: ``*`` crosses
    slashes. What is below a folder that is left out is left out.
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
