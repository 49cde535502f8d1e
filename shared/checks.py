"""What a preflight found, check by check: for people as a page, for programs as JSON."""

from __future__ import annotations

import textwrap
from enum import Enum
from typing import TYPE_CHECKING

import msgspec

from shared.errors import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

_WIDTH = 100
_LISTED = 5


CUTOVER_CHECK = "cutover"
"""The name of the check that a pull without cutover need not pass."""


LIBRARY_CHECK = "library"
"""The name of the check whether the folder is Plex's; any folder moves without a cutover."""


LINKS_OUT_ADVICE = "They move as they are: make sure that the pod has what they lead to."
"""What to do about symlinks that lead out of the library."""


class Outcome(Enum):
    """What a check means for the move."""

    PASS = "pass"  # noqa: S105 - no password
    WARNING = "warning"
    FAILURE = "failure"


class Check(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One thing that was looked at."""

    name: str
    outcome: Outcome
    found: str
    """What is there, in a sentence or less."""
    advice: str = ""
    """What to do about it; empty where all is well."""


def page(checks: Sequence[Check]) -> str:
    """All checks, for a terminal: outcome, name, what was found, and below it what to do."""
    if not checks:
        return ""
    names = max(len(check.name) for check in checks)
    column = len("failure  ") + names + 2
    lines = []
    for check in checks:
        head = f"{check.outcome.value:<7}  {check.name:<{names}}  "
        lines += _folded(check.found, head, column)
        if check.advice:
            lines += _folded(check.advice, " " * (column - 3) + "-> ", column)
    counts = ", ".join(
        f"{sum(check.outcome is outcome for check in checks)} {outcome.value}"
        for outcome in Outcome
    )
    return "\n".join([*lines, "", counts])


def some(paths: Sequence[str]) -> str:
    """The first few of them, and how many more there are."""
    more = len(paths) - _LISTED
    return ", ".join(paths[:_LISTED]) + (f" and {more} more" if more > 0 else "")


def size(count: float) -> str:
    """Bytes as people read them."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":  # noqa: PLR2004 - the base of the units
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError(count)


def duration(seconds: float) -> str:
    """Seconds as people read them."""
    if seconds < 60:  # noqa: PLR2004 - a minute
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"  # noqa: PLR2004 - an hour


def _folded(text: str, head: str, column: int) -> list[str]:
    return textwrap.wrap(
        printable(text),  # some of it may be the agent's words, or a file's name
        _WIDTH,
        initial_indent=head,
        subsequent_indent=" " * column,
        break_long_words=False,
        break_on_hyphens=False,
    ) or [head.rstrip()]
