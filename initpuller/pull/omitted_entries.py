"""The list of what a snapshot leaves out: downloaded beside the manifest, checked, and reported."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import structlog

from shared import errors
from shared.tree.omitted import Reason, check_omitted

if TYPE_CHECKING:
    from initpuller.agent_client.client import AgentClient
    from initpuller.agent_client.retry import Retrier
    from initpuller.volume.records.layout import Layout
    from shared.wire.protocol import OmittedList, Snapshot

_log = structlog.get_logger("puller")

_EXAMPLES = 5


async def save_omitted(
    client: AgentClient, retrier: Retrier, layout: Layout, snapshot: Snapshot
) -> None:
    """Save the snapshot's list of omitted entries on the volume, unless it is there already.

    Raises:
        OmittedListMalformed, OmittedListTooLarge, OmittedListWrong, IllegalPath, EntriesOutOfOrder:
            it is not one that we take.
        PlexodusError: the agent does not send it, or the volume does not take it.
    """
    if snapshot.omitted is None:
        return
    path, root = layout.omitted(snapshot.id), os.fsencode(snapshot.library.name)
    try:
        examples = await asyncio.to_thread(_checked, path, snapshot.omitted, root)
    except (FileNotFoundError, errors.IntegrityError):
        await retrier.run("the list of omitted entries", lambda: client.omitted(snapshot, path))
        examples = await asyncio.to_thread(_checked, path, snapshot.omitted, root)
    if examples:
        _log.warning(
            "not library content, left out", count=snapshot.omitted.skipped, examples=examples
        )


def _checked(path: str, announced: OmittedList, root: bytes) -> list[str]:
    """Check the list in the file ``path``; return a few records of what is not library content."""
    examples: list[str] = []
    for record in check_omitted(path, announced, root):
        if record.reason is not Reason.EXCLUDED and len(examples) < _EXAMPLES:
            examples.append(str(record))
    return examples
