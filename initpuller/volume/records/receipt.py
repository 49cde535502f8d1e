"""The receipt: the proof that a library was moved, and of what exactly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from initpuller.volume.fidelity import Losses
from initpuller.volume.records.record_file import load_record
from shared.plex.library import ServerFacts
from shared.wire.protocol import Library, OmittedList

if TYPE_CHECKING:
    from initpuller.volume.records.layout import Layout


class Receipt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The receipt of a move: source, time, content and digests."""

    format: Literal[1]
    plexodus: str
    """Version of the puller that published."""
    library: Library
    snapshot: str
    """SHA-256 of the manifest's lines."""
    manifest_file_sha256: str
    """SHA-256 of ``manifest.jsonl.zst`` beside the receipt."""
    sums_sha256: str
    """SHA-256 of ``SHA256SUMS`` beside the receipt."""
    entries: int
    files: int
    content_bytes: int
    owner: str
    """``keep``, or the ``UID:GID`` that everything was given."""
    exclude: list[str]
    scanned: str
    started: str
    verified: str
    runs: int
    """How many runs of the puller it took."""
    preferences: dict[str, str] = {}
    """Plex's preferences that were set: ``Preferences.xml`` differs from the manifest."""
    databases: dict[str, str] = {}
    """What the check of each of the source's databases found, or why it was not checked."""
    plex: ServerFacts | None = None
    """What the server was, if it is Plex."""
    rehearsal: bool = False
    """Plex ran on the VM, and goes on there: for trying, not for moving."""
    set_aside: str | None = None
    """Where what had the library's name before has gone."""
    losses: Losses | None = None
    """Which attributes of the source the volume cannot keep; None: it keeps all."""
    omitted: OmittedList | None = None
    """What was left out: counts, and the digest of ``omitted.jsonl.zst`` beside the receipt. None:
    an older release began this receipt, and lists all of it here, in the next two fields."""
    excluded: list[str] | msgspec.UnsetType = msgspec.UNSET
    """Older releases: ``path (size bytes)`` of what ``exclude`` matched."""
    skipped: list[str] | msgspec.UnsetType = msgspec.UNSET
    """Older releases: ``path (what)`` of what is not library content."""


def load_receipt(layout: Layout) -> Receipt | None:
    """Return the receipt, if there is one."""
    return load_record(layout.receipt, Receipt)
