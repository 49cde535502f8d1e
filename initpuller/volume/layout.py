"""Where everything lies on the target volume (docs/protocol.md, "On the volume")."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from initpuller.volume.filesystem import mount_of
from initpuller.volume.records import load_receipt, load_state
from shared.errors import ConfigurationError, StorageError, VolumeLocked, storage_error
from shared.memberpath import STATE_FOLDER
from shared.plexlibrary import SUPPORT_FOLDER, is_server_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from initpuller.volume.records import Receipt

USUAL_NAME = "Library"
"""What Plex calls its library: looked for before the agent has told the name."""
RECORD_PREFIXES = ("manifest-", "journal-", "digests-", "sums-", "amended-")
"""How the names of the files begin that belong to one snapshot and one pull."""


@dataclass(frozen=True)
class Layout:
    """The names below one target folder."""

    target: str

    @property
    def places_server(self) -> bool:
        """Whether Plex's own folder arrives with the folders above it that Plex's image expects."""
        return not self.target.endswith(f"/{SUPPORT_FOLDER}")

    @property
    def folder(self) -> str:
        """The puller's own folder."""
        return os.path.join(self.target, STATE_FOLDER.decode())

    @property
    def lock(self) -> str:
        """Held by who writes to the volume."""
        return os.path.join(self.folder, "lock")

    @property
    def staging(self) -> str:
        """Where the library is assembled."""
        return os.path.join(self.folder, "staging")

    @property
    def moving(self) -> str:
        """Files on their way from one path to another; no library has this name."""
        return os.path.join(self.staging, STATE_FOLDER.decode())

    @property
    def probes(self) -> tuple[str, str]:
        """Where the volume is probed: in staging once it is there, else beside where it will be."""
        return self.moving, os.path.join(self.folder, "probe")

    @property
    def published_probe(self) -> str:
        """Where a probe tries the rename that publishes."""
        return os.path.join(self.target, f"{STATE_FOLDER.decode()}-probe")

    @property
    def state(self) -> str:
        """Phase and snapshot."""
        return os.path.join(self.folder, "state.json")

    @property
    def receipt(self) -> str:
        """The proof."""
        return os.path.join(self.folder, "receipt.json")

    @property
    def receipt_manifest(self) -> str:
        """All entries that were moved."""
        return os.path.join(self.folder, "manifest.jsonl.zst")

    @property
    def receipt_sums(self) -> str:
        """The digest of every file that was moved."""
        return os.path.join(self.folder, "SHA256SUMS")

    @property
    def trash(self) -> str:
        """While Plex' libraries move to other folders: its emptying of trash was on."""
        return os.path.join(self.folder, "trash-was-on")

    @property
    def migrated(self) -> str:
        """What was found when Plex ran on this volume for the first time."""
        return os.path.join(self.folder, "migrated.json")

    def manifest(self, snapshot: str) -> str:
        """The manifest of a snapshot that is under way."""
        return os.path.join(self.folder, f"manifest-{snapshot}")

    def journal(self, snapshot: str) -> str:
        """Its finished frames."""
        return os.path.join(self.folder, f"journal-{snapshot}")

    def digests(self, snapshot: str) -> str:
        """The digests of its unpacked files."""
        return os.path.join(self.folder, f"digests-{snapshot}")

    def sums(self, snapshot: str) -> str:
        """The agent's own list of digests."""
        return os.path.join(self.folder, f"sums-{snapshot}")

    def amended(self, snapshot: str) -> str:
        """What is about to take the place of a file of it."""
        return os.path.join(self.folder, f"amended-{snapshot}")

    def library(self, name: str) -> str:
        """The final name."""
        return os.path.join(self.target, name)

    def staged(self, name: str) -> str:
        """The same, in staging."""
        return os.path.join(self.staging, name)


def open_layout(target: str) -> Layout:
    """Return the layout of the volume that ``target`` means, see :func:`_volume`.

    Raises:
        ConfigurationError: ``target`` is no folder.
        StorageError: a record cannot be read.
    """
    volume = _volume(os.path.abspath(target))
    if not os.path.isdir(volume):
        raise ConfigurationError(
            "the target is not a folder", path=target, hint="Is the volume mounted there?"
        )
    return Layout(volume)


def _volume(target: str) -> str:
    """Return the folder that has the puller's records, or will have them.

    Plex's own folder may be moved to two targets, the volume and the ``Library/Application
    Support`` on it, and arrives at the same place. A later run with the other target must find the
    records of the first one. On an empty volume the second target is not there, and is not made.
    """
    above = target.removesuffix(f"/{SUPPORT_FOLDER}")
    if above == target:
        below = Layout(os.path.join(target, SUPPORT_FOLDER))
        is_there = _moved(Layout(target)) is None and _is_server(load_receipt(below))
        return below.target if is_there else target
    moved = _moved(Layout(above))
    if moved is None and not os.path.isdir(target) and os.path.isdir(above):
        return above
    return above if moved == USUAL_NAME and _moved(Layout(target)) is None else target


def _moved(layout: Layout) -> str | None:
    """Return the name of the library that the records on a volume are about, if there is one."""
    receipt = load_receipt(layout)
    if receipt is not None:
        return receipt.library.name
    state = load_state(layout)
    return state.snapshot.library.name if state is not None else None


def _is_server(receipt: Receipt | None) -> bool:
    return receipt is not None and is_server_name(receipt.library.name)


@contextmanager
def locked(layout: Layout) -> Iterator[None]:
    """Hold the volume for this process alone; the lock ends with the process, however it ends.

    Raises:
        VolumeLocked: another puller holds it.
        StorageError: the volume cannot be written, or its filesystem cannot lock files.
    """
    path = layout.lock
    try:
        os.makedirs(layout.folder, mode=0o700, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise storage_error(error, layout.folder) from error
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise VolumeLocked(
                "another puller is at work on this volume",
                path=layout.target,
                hint="Let it finish, or stop it; then run again.",
            ) from None
        except OSError as error:
            raise _lock_refused(error, layout) from error
        if not _is_at(path, fd):  # a preflight that made it has removed it
            raise VolumeLocked("a preflight is at work on this volume", path=layout.target)
        yield
    finally:
        os.close(fd)


def _is_at(path: str, fd: int) -> bool:
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(fd))
    except FileNotFoundError:
        return False


def _lock_refused(error: OSError, layout: Layout) -> StorageError:
    """Return the error for a filesystem whose flock(2) fails: NFS 3 without a lock service."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    return StorageError(
        f"the volume mounted at {mount_of(layout.folder)} cannot lock files ({reason})",
        path=layout.lock,
        hint="Use a volume with working locks: a block volume, or NFS 4. On NFS 3, start the lock"
        " service (rpc.statd) on both sides, or mount with 'local_lock=all' if only one node"
        " uses the volume. Then run again.",
    )
