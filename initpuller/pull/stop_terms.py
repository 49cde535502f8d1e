"""On which terms Plex is stopped for a pull: for how long, and not again for nothing.

A failure that depends on the volume and the options alone is remembered, on the volume and by the
agent, together with its circumstances. Plex is not stopped again until one of these has changed. A
failure that depends on the source is not remembered, since nothing shows here that somebody has
repaired a file on the VM. For those, the agent makes a growing pause between two stops.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING

from initpuller.volume.filesystem import mount_of
from shared import __version__, errors
from shared.checks import duration
from shared.program.exit_codes import exit_code_for
from shared.timestamps import timestamp
from shared.tree.member_path import STATE_FOLDER
from shared.wire.protocol import StopFailure

if TYPE_CHECKING:
    from shared.wire.pairing import Pairing
    from shared.wire.protocol import CutoverStanding

MAX_DOWNTIME = 3600.0
"""Seconds that Plex may be stopped for one pull, unless the user says otherwise."""
_MAX_TEXT = 1000
_OF_VOLUME = (
    errors.StorageError,
    errors.TreeDiffers,
    errors.ConfigurationError,
)
"""Failures that depend on the volume or the options, and so on the circumstances. A name that was
taken does not count: the next run finds it before it has Plex stopped."""
_OF_SOURCE = (errors.VolumeUnsuitable, errors.AgentStorageError)
"""Storage errors that a change on the VM can end."""
_ROOM = 0.01
"""Part of a full volume's size that has to have become free."""
_FORCE = "Or add --retry-failed (PLEXODUS_RETRY_FAILED=1) to have Plex stopped anyway."


@dataclass(frozen=True)
class StopTerms:
    """The terms of one run."""

    max_downtime: float = MAX_DOWNTIME
    """Seconds that Plex may be stopped."""
    retry_failed: bool = False
    """Stop Plex whatever has come of it before."""
    circumstances: dict[str, str] = field(default_factory=dict)
    """What a failure depends on, by name; without any, nothing is remembered."""
    target: str = ""
    """The volume."""

    def remembered(self, error: BaseException) -> StopFailure | None:
        """Return what is to be remembered of ``error``, raised while Plex was stopped.

        That is nothing if a change on the VM could end it, or another run.
        """
        if not isinstance(error, _OF_VOLUME) or isinstance(error, _OF_SOURCE):
            return None
        if not self.circumstances:
            return None
        what = str(error.what if error.path is None else f"{error.what}: {error.path}")
        return StopFailure(
            code=exit_code_for(error),
            what=what[:_MAX_TEXT],
            hint=error.hint[:_MAX_TEXT],
            at=timestamp(),
            circumstances=self.circumstances,
            available=_available(self.target) if isinstance(error, errors.NoSpace) else 0,
        )

    def check(self, standing: CutoverStanding, failure: StopFailure | None) -> bool:
        """Return whether the agent has to stop Plex in spite of its own record of failures.

        Args:
            standing: the cutover's, with what the agent remembers.
            failure: what the volume remembers.

        Raises:
            RepeatedFailure: Plex would be stopped for a failure that is known already.
            CutoverRefused: it was stopped too often for nothing.
        """
        if self.retry_failed:
            return True
        has_room = False
        for each in (failure, standing.failure):
            if each is None or not self.circumstances or each.circumstances != self.circumstances:
                continue
            if each.available and self._has_more_room(each):
                has_room = True
                continue
            raise errors.RepeatedFailure(
                f"Plex is not stopped again: {each.what} ({each.at}, exit code {each.code}), and"
                f" nothing has changed since: {', '.join(sorted(each.circumstances))}",
                hint=f"{each.hint} {_FORCE}".strip(),
                code=each.code,
            )
        if standing.pause:
            raise errors.CutoverRefused(
                f"Plex was stopped {standing.stops} times in a row without a complete move; it is"
                f" not stopped again for {duration(standing.pause)}",
                hint=f"'plexodus-agent log' on the VM says what went wrong. {_FORCE}",
            )
        return has_room

    def _has_more_room(self, failure: StopFailure) -> bool:
        found = os.statvfs(self.target)
        needed = failure.available + _ROOM * found.f_blocks * found.f_frsize
        return _available(self.target) >= needed


def circumstances(target: str, pairing: Pairing, options: str) -> dict[str, str]:
    """Return what a failure depends on, as far as the puller knows.

    ``options`` are all that decide what arrives, as text.
    """
    return {
        "puller": __version__,
        "options": _digest(options),
        "pairing": f"{pairing.host}:{pairing.port}, {_digest(str(pairing))}",
        "volume": _volume(target),
    }


def _volume(target: str) -> str:
    """Return what a failure of the volume may depend on; its free space changes all the time."""
    found = os.statvfs(target)
    size = f"{found.f_blocks * found.f_frsize:.2e} bytes"  # some filesystems vary a little
    ours = os.fsdecode(STATE_FOLDER)
    names = sorted(name for name in os.listdir(target) if name != ours)
    return f"{mount_of(target)}, {size}, flags {found.f_flag}, {_digest(names)} beside ours"


def _available(target: str) -> int:
    found = os.statvfs(target)
    return max(1, found.f_bavail * found.f_frsize)


def _digest(what: object) -> str:
    return sha256(repr(what).encode("utf-8", "surrogateescape")).hexdigest()[:12]
