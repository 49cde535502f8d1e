"""Requests to the agent about one snapshot, beside those for its frames."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import structlog

from initpuller.cancellation import in_thread
from shared import errors
from shared.frames.sha256sums import max_bytes
from shared.tree.omitted import Reason, check_omitted

if TYPE_CHECKING:
    from initpuller.pull.options import PullContext
    from shared.frames.manifest_file import ManifestFile
    from shared.wire.protocol import OmittedList, Snapshot

_log = structlog.get_logger("puller")

_EXAMPLES = 5


class SourceQueries:
    """Asks for one snapshot's lists, and saves them on the volume.

    Raises:
        SourceChanged: every method, if the library is not as it was scanned.
        PlexodusError: every method, for whatever else stops a pull.
    """

    def __init__(self, context: PullContext, snapshot: Snapshot) -> None:
        self._client = context.client
        self._retrier = context.options.retrier
        self._layout = context.layout
        self._snapshot = snapshot

    async def manifest(self) -> None:
        """Download the manifest."""
        path = self._layout.manifest(self._snapshot.id)
        await self._retrier.run("the manifest", lambda: self._client.manifest(self._snapshot, path))

    async def omitted(self) -> None:
        """Download and check the list of omitted entries, unless it is there already."""
        announced, snapshot = self._snapshot.omitted, self._snapshot
        if announced is None:
            return
        path, root = self._layout.omitted(snapshot.id), os.fsencode(snapshot.library.name)
        try:
            examples = await in_thread(_checked, path, announced, root)
        except (FileNotFoundError, errors.IntegrityError):
            await self._retrier.run(
                "the list of omitted entries", lambda: self._client.omitted(snapshot, path)
            )
            examples = await in_thread(_checked, path, announced, root)
        if examples:
            _log.warning(
                "not library content, left out", count=announced.skipped, examples=examples
            )

    async def sums(self, manifest: ManifestFile) -> None:
        """Download the digest of each file, as the agent read it.

        The manifest, which was checked, limits the length of the response.
        """
        path, plan = self._layout.sums(self._snapshot.id), manifest.plan
        most = max_bytes(plan.files, plan.path_bytes)
        await self._retrier.run(
            "the digests", lambda: self._client.sums(self._snapshot, path, most)
        )

    async def check(self) -> None:
        """Have the agent check that the library is as it was scanned, unless Plex runs."""
        if self._snapshot.kind == "cold":
            await self._retrier.run(
                "the check of the source", lambda: self._client.check(self._snapshot.id)
            )


def _checked(path: str, announced: OmittedList, root: bytes) -> list[str]:
    """Check the list in the file ``path``; return a few records of what is not library content."""
    examples: list[str] = []
    for record in check_omitted(path, announced, root):
        if record.reason is not Reason.EXCLUDED and len(examples) < _EXAMPLES:
            examples.append(str(record))
    return examples
