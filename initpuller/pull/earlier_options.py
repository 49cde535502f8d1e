"""The options of a run that publishes what an earlier run verified, with other options."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from initpuller.pull.checks.target_checks import completed
from shared.checks import Outcome
from shared.errors import PreflightRefused

if TYPE_CHECKING:
    from initpuller.pull.options import PullOptions
    from initpuller.volume.records.receipt import Receipt

_log = structlog.get_logger("puller")


async def require_version(receipt: Receipt, options: PullOptions) -> None:
    """Raise PreflightRefused if the pod's Plex is too old for the library that is verified."""
    gate = await completed(options.gate)
    check = gate.check(receipt.plex.version if receipt.plex is not None else None)
    if check.outcome is Outcome.FAILURE:
        raise PreflightRefused(f"{check.name}: {check.found}", hint=check.advice)


def warn_of_ignored(receipt: Receipt, options: PullOptions) -> None:
    """Name the options that would have changed what is published, if they were given earlier."""
    pairs = {
        "--set-preference": (receipt.preferences, options.preferences),
        "--owner": (receipt.owner, str(options.ownership)),
        "--exclude": (receipt.exclude, options.exclude),
    }
    ignored = [name for name, (earlier, now) in pairs.items() if earlier != now]
    if ignored:
        _log.warning(
            "an earlier run has verified this library, and its options apply",
            ignored=ignored,
            hint="Make these changes here before Plex starts. Or run 'plexodus-agent undo' on the"
            " VM, remove Library and .plexodus from the volume, and pull again.",
        )
