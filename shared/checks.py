"""Checks of a move: their identifiers, their results, and how results are shown.

Each side has one registry of its checks: ``agent/source_checks.py`` for the VM, and
``initpuller/pull/checks/target_checks.py`` for the volume. ``preflight`` and ``pull`` filter that
registry by :class:`When`.
"""

from __future__ import annotations

import textwrap
from enum import Enum
from typing import TYPE_CHECKING, Self

import msgspec

from shared.errors import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

_WIDTH = 100
_LISTED = 5

LINKS_OUT_ADVICE = "They move as they are: make sure that the pod has what they lead to."
"""What to do about symlinks that lead out of the library."""


class When(Enum):
    """A command that runs checks."""

    PREFLIGHT = "preflight"
    PULL = "pull"


EVERY_RUN = frozenset(When)
"""For a check that both commands run."""
PREFLIGHT_ONLY = frozenset({When.PREFLIGHT})
"""For a check that takes long, or that a pull makes with better facts at a later step."""


class Outcome(Enum):
    """The result of a check, for the move."""

    PASS = "pass"  # noqa: S105 - no password
    WARNING = "warning"
    FAILURE = "failure"


class CheckId(Enum):
    """Identifier of a check, which travels in JSON and never changes, and the name users see."""

    title: str

    def __new__(cls, identifier: str, title: str) -> Self:
        """Make the identifier the member's value."""
        member = object.__new__(cls)
        member._value_ = identifier
        member.title = title
        return member

    UNKNOWN = "", ""
    """A check of an older or newer peer that this release cannot identify."""

    # The source, checked by the agent.
    LIBRARY = "library", "library"
    PLEX_FOLDERS = "plex-folders", "Plex's folders"
    METADATA_FOLDER = "metadata-folder", "Metadata"
    MEDIA_FOLDER = "media-folder", "Media"
    SOURCE_VERSION = "source-version", "Plex version"
    PLEX_RUNNING = "plex-running", "Plex"
    CUTOVER = "cutover", "cutover"
    LIBRARY_DATABASE = "library-database", "library database"
    BLOBS_DATABASE = "blobs-database", "blobs database"
    PREFERENCES = "preferences", "Preferences.xml"
    OLD_MACHINE = "old-machine", "old machine"
    AUTOMATIC_TRASH = "automatic-trash", "automatic trash"
    CONTENT = "content", "content"
    READABLE = "readable", "readable"
    SYMLINKS = "symlinks", "symlinks"
    REGENERABLE = "regenerable", "regenerable"

    # The target, checked by the puller.
    VERSION = "version", "version"
    PLACEMENT = "placement", "placement"
    SPACE = "space", "space"
    INODES = "inodes", "inodes"
    FILESYSTEM = "filesystem", "filesystem"
    TARGET = "target", "target"
    VOLUME = "volume", "volume"
    VOLUME_OWNER = "volume-owner", "volume: owner"
    VOLUME_MODE = "volume-mode", "volume: mode"
    VOLUME_TIMES = "volume-times", "volume: times"
    VOLUME_XATTRS = "volume-xattrs", "volume: xattrs"
    VOLUME_HARD_LINKS = "volume-hard-links", "volume: hard links"
    VOLUME_SYMLINKS = "volume-symlinks", "volume: symlinks"
    VOLUME_HOLES = "volume-sparse-files", "volume: sparse files"
    VOLUME_FILE_SIZE = "volume-file-size", "volume: file size"
    VOLUME_NAMES = "volume-names", "volume: names"
    VOLUME_CASE = "volume-case", "volume: case"
    VOLUME_PATHS = "volume-paths", "volume: paths"
    VOLUME_LOCKS = "volume-locks", "volume: locks"
    VOLUME_RENAME = "volume-rename", "volume: rename"
    TIME = "time", "time"
    MEDIA_MOUNTS = "media-mounts", "media"

    # The Plex that runs on the volume after the move.
    RUNNING_IDENTITY = "running-identity", "identity"
    RUNNING_VERSION = "running-version", "version"
    RUNNING_SECTIONS = "running-sections", "libraries"

    @classmethod
    def _missing_(cls, value: object) -> CheckId | None:
        return CheckId.UNKNOWN if isinstance(value, str) else None

    def passed(self, found: str, advice: str = "") -> Check:
        """Return the result of this check if all is well."""
        return Check(self.title, Outcome.PASS, found, advice, self)

    def warning(self, found: str, advice: str = "") -> Check:
        """Return the result of this check if the user should know something."""
        return Check(self.title, Outcome.WARNING, found, advice, self)

    def failure(self, found: str, advice: str = "") -> Check:
        """Return the result of this check if the move must not start."""
        return Check(self.title, Outcome.FAILURE, found, advice, self)


DATABASE_CHECKS = frozenset({CheckId.LIBRARY_DATABASE, CheckId.BLOBS_DATABASE})
"""Checks whose results go into the migration log and the receipt."""


class Check(msgspec.Struct, frozen=True):
    """Result of one check. :class:`CheckId` has a function for each outcome."""

    name: str
    outcome: Outcome
    found: str
    """What is there, in a sentence or less."""
    advice: str = ""
    """What to do about it; empty where all is well."""
    id: CheckId = CheckId.UNKNOWN
    """UNKNOWN in the JSON of a release without identifiers."""


def page(checks: Sequence[Check]) -> str:
    """Return all results for a terminal: outcome, name, finding, and the advice below them."""
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
    """Return the first few paths, and how many more there are."""
    more = len(paths) - _LISTED
    return ", ".join(paths[:_LISTED]) + (f" and {more} more" if more > 0 else "")


def size(count: float) -> str:
    """Return a number of bytes with its unit."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":  # noqa: PLR2004 - the base of the units
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError(count)


def duration(seconds: float) -> str:
    """Return seconds as seconds, minutes, or hours and minutes."""
    if seconds < 60:  # noqa: PLR2004 - a minute
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"  # noqa: PLR2004 - an hour


def _folded(text: str, head: str, column: int) -> list[str]:
    return textwrap.wrap(
        printable(text),  # may contain the agent's words or a file's name
        _WIDTH,
        initial_indent=head,
        subsequent_indent=" " * column,
        break_long_words=False,
        break_on_hyphens=False,
    ) or [head.rstrip()]
