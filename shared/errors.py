"""The errors of both programs: :class:`Temporary` if a retry may help, :class:`Permanent` if not.

:mod:`shared.program.exit_codes` has their exit codes.
"""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


_OF_DISKS = (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ESTALE)
_LASTING = (
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG),
    *(errno.EACCES, errno.EPERM, errno.EINVAL),
)


class PlexodusError(Exception):
    """A failure, with the path it concerns and advice for the user.

    Args:
        what: the failure, in one sentence without a full stop.
        path: the path that it concerns, as the user knows it; bytes are shown with escapes.
        hint: advice on how to fix it.
    """

    def __init__(self, what: str, *, path: str | bytes | None = None, hint: str = "") -> None:
        what = printable(what)  # may contain text that the agent sent
        super().__init__(what)
        self.what = what
        self.path = printable(path) if path is not None else None
        self.hint = "\n".join(map(printable, hint.split("\n")))

    def __str__(self) -> str:
        """Return the message: failure, path and advice."""
        line = self.what if self.path is None else f"{self.what}: {self.path}"
        return f"{line}. {self.hint}" if self.hint else line


class Temporary(PlexodusError):
    """A failure that a retry may overcome. No other is retried."""


class Permanent(PlexodusError):
    """A failure that a retry cannot overcome."""


class AgentUnreachable(Temporary):
    """The agent cannot be reached, closed the connection, stalled, or failed internally."""


class VolumeLocked(Temporary):
    """Another puller is using this volume."""


class PlexUnreachable(Temporary):
    """The Plex that runs on the volume does not respond (yet)."""


class SnapshotGone(Temporary):
    """The agent no longer has the snapshot, for example because its state folder was emptied."""


class CutoverEnded(Temporary):
    """Plex was started on the VM during the cutover, so the transferred files are out of date."""


class FrameDamaged(Temporary):
    """The bytes of a frame do not match the digest that the agent announced."""


class ConfigurationError(Permanent):
    """An option, variable, file or pairing string is invalid."""


class AuthenticationError(Permanent):
    """The token is not the agent's, or the agent's certificate is not the paired one."""


class PreflightRefused(Permanent):
    """A check failed before anything was transferred."""


class SourceUnreadable(PreflightRefused):
    """The agent cannot read the entries ``paths`` of the library."""

    def __init__(self, paths: list[str]) -> None:
        listing = "".join(f"\n  {path}" for path in paths)
        super().__init__(
            f"the agent cannot read {len(paths)} entries of the library; nothing was published",
            hint="Give the agent's user read access to these entries, or leave them out with"
            f" --exclude:{listing}",
        )
        self.paths = paths


class IntegrityError(Permanent):
    """Transferred data, or data on the volume, differs from what was announced."""


class FrameDamagedTwice(IntegrityError):
    """The same frame arrived damaged twice in a row."""


class FrameTooLarge(IntegrityError):
    """A frame is larger, encoded or decoded, than the manifest allows."""


class FrameSizeWrong(IntegrityError):
    """A frame decodes to fewer bytes than the manifest declares."""


class ManifestTooLarge(IntegrityError):
    """A manifest exceeds a limit on its bytes, its entries or one of its lines."""


class ManifestMalformed(IntegrityError):
    """A manifest, or a line of it, cannot be parsed."""


class ManifestDigestWrong(IntegrityError):
    """The digest of a manifest differs from the snapshot's name."""


class ManifestSumsWrong(IntegrityError):
    """The entries, bytes or frames of a manifest do not add up to the announced totals."""


class OmittedListTooLarge(IntegrityError):
    """A list of omitted entries exceeds a limit on its bytes, its records or one of its lines."""


class OmittedListMalformed(IntegrityError):
    """A list of omitted entries, or a line of it, cannot be parsed."""


class OmittedListWrong(IntegrityError):
    """The digest or the counts of a list of omitted entries are not those of the snapshot."""


class IllegalPath(IntegrityError):
    """A path could lead out of the library: it is absolute, too long, or contains ``..`` or NUL."""


class IllegalLink(IntegrityError):
    """A link has a target that no filesystem can hold, or that is not in the manifest."""


class EntriesOutOfOrder(IntegrityError):
    """The entries of a manifest are not strictly sorted, or one is a duplicate."""


class ParentNotDirectory(IntegrityError):
    """The parent of an entry is not a directory of the manifest."""


class ProtocolViolation(IntegrityError):
    """The agent sent a response that the protocol does not allow."""


class PlexRefused(IntegrityError):
    """Plex did not carry out a request, or is not the server that was moved."""


class TreeDiffers(IntegrityError):
    """The tree at ``place`` differs from the manifest or receipt: one line each, path first."""

    def __init__(self, differences: list[str], place: str) -> None:
        listing = "".join(f"\n  {line}" for line in differences)
        super().__init__(
            f"the library on the volume differs from its manifest in {len(differences)} places",
            path=place,
            hint=f"The differences:{listing}",
        )


class TargetConflict(Permanent):
    """The volume holds data that must be neither changed nor mixed with the library."""


class StorageError(Permanent):
    """A write to the volume or to the state folder failed."""


class NoSpace(StorageError):
    """The volume is full, or too small for the library."""


class VolumeUnsuitable(StorageError):
    """The volume's filesystem does not support names, links or attributes that the library uses."""


class AgentStorageError(StorageError):
    """A write to the agent's state folder failed."""


class SourceChanged(Permanent):
    """The library changed after a cold snapshot was taken."""


class CutoverRefused(Permanent):
    """Plex cannot be stopped, would not stay stopped, or another puller has stopped it."""


class RepeatedFailure(Permanent):
    """An earlier pull failed while Plex was stopped, and would fail again, so Plex is not stopped.

    The exit code is that of the earlier failure, ``code``.
    """

    def __init__(
        self, what: str, *, path: str | bytes | None = None, hint: str = "", code: int = 0
    ) -> None:
        super().__init__(what, path=path, hint=hint)
        self.code = code


class Interrupted(Permanent):
    """A signal stopped the program; the next run resumes."""


def printable(path: str | bytes) -> str:
    """Return ``path`` with control characters and undecodable bytes escaped, for a message."""
    text = path.decode("utf-8", "backslashreplace") if isinstance(path, bytes) else path
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def storage_error(error: OSError, path: str | bytes) -> StorageError:
    """Return the :class:`StorageError` that reports ``error`` about ``path``."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(
            f"no space left while writing ({reason})",
            path=path,
            hint="Enlarge the volume and run again. The next run resumes with the data on it.",
        )
    hint = "Check the volume's health, mount options and permissions, then run again."
    if error.errno == errno.EACCES and os.geteuid() == 0:
        hint = (
            "Root may not write here: an NFS export with root_squash takes root for nobody, and a"
            " container may lack the capability DAC_OVERRIDE. Run as the owner of the folder"
            " (runAsUser), or export it with no_root_squash."
        )
    return StorageError(f"the filesystem reported an error ({reason})", path=path, hint=hint)


def is_lasting(error: OSError) -> bool:
    """Return whether the cause of ``error`` lasts until a person changes something.

    Such a cause is a path, a permission or a setting. Any other may pass by itself. systemd starts
    the agent again then, but never after the exit code of a :class:`ConfigurationError`.
    """
    return error.errno in _LASTING


def unusable_file(
    error: OSError, what: str, path: str, hint: str = ""
) -> ConfigurationError | StorageError:
    """Return the error that reports why a file of the configuration cannot be used.

    That is a :class:`ConfigurationError` with the text ``what`` if the cause lasts, see
    :func:`is_lasting`.
    """
    if not is_lasting(error):
        return storage_error(error, path)
    return ConfigurationError(f"{what} ({error.strerror})", path=path, hint=hint)


@contextmanager
def storage_errors(path: str | bytes) -> Iterator[None]:
    """Raise an OSError of the block as the :class:`StorageError` that reports it about ``path``."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, path) from error


@contextmanager
def disk_errors(path: str | bytes) -> Iterator[None]:
    """Raise an OSError of the block as a :class:`StorageError` if only a disk can cause it.

    Any other is a bug, and stays an OSError.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _OF_DISKS:
            raise
        raise storage_error(error, path) from error
