"""Every way in which a move can fail, as one tree.

::

    PlexodusError
    ├── Temporary                     trying again may help: the retry loop looks at nothing else
    │   ├── AgentUnreachable          refused, cut, stalled, or an answer of the 5xx kind
    │   ├── PlexUnreachable           the pod's Plex does not answer (yet)
    │   ├── SnapshotGone              the agent no longer has the snapshot: scan again
    │   ├── CutoverEnded              Plex on the VM was started again: bring what it wrote since
    │   └── FrameDamaged              a frame whose digest is wrong, the first time
    └── Permanent                     trying again cannot help: tell the user and stop
        ├── ConfigurationError
        ├── AuthenticationError
        ├── PreflightRefused
        │   └── SourceUnreadable
        ├── IntegrityError
        │   ├── FrameDamagedTwice, FrameTooLarge, FrameSizeWrong
        │   ├── ManifestTooLarge, ManifestMalformed, ManifestDigestWrong, ManifestSumsWrong
        │   ├── IllegalPath, IllegalLink, EntriesOutOfOrder, ParentNotDirectory
        │   ├── ProtocolViolation
        │   ├── PlexRefused
        │   └── TreeDiffers
        ├── TargetConflict
        │   └── VolumeLocked
        ├── StorageError
        │   ├── NoSpace
        │   ├── VolumeUnsuitable
        │   └── AgentStorageError
        ├── SourceChanged
        ├── CutoverRefused
        ├── RepeatedFailure
        └── Interrupted

Exit codes for these are in :mod:`shared.program.exit_codes`.
"""

from __future__ import annotations

import errno
import os


class PlexodusError(Exception):
    """What happened, to which path, and what to do.

    Args:
        what: one sentence without a full stop: what happened.
        path: the path it happened to, as the user knows it; bytes are shown with escapes.
        hint: what the user can do about it.
    """

    def __init__(self, what: str, *, path: str | bytes | None = None, hint: str = "") -> None:
        what = printable(what)  # some of it may be the agent's words
        super().__init__(what)
        self.what = what
        self.path = printable(path) if path is not None else None
        self.hint = "\n".join(map(printable, hint.split("\n")))

    def __str__(self) -> str:
        """One line for people."""
        line = self.what if self.path is None else f"{self.what}: {self.path}"
        return f"{line}. {self.hint}" if self.hint else line


class Temporary(PlexodusError):
    """Trying again may help."""


class Permanent(PlexodusError):
    """Trying again cannot help."""


class AgentUnreachable(Temporary):
    """The agent cannot be reached, went away, stalled, or is in trouble of its own."""


class PlexUnreachable(Temporary):
    """The Plex that runs on the volume does not answer (yet)."""


class SnapshotGone(Temporary):
    """The agent does not know the snapshot any more (its state folder was emptied)."""


class CutoverEnded(Temporary):
    """The agent has started Plex again, or it was started: what was brought is out of date."""


class FrameDamaged(Temporary):
    """A frame arrived whose bytes are not those the agent announced."""


class ConfigurationError(Permanent):
    """An option, variable, file or pairing string that cannot be used."""


class AuthenticationError(Permanent):
    """The token is not the agent's, or the agent's certificate is not the paired one."""


class PreflightRefused(Permanent):
    """A check made before anything was transferred says no."""


class SourceUnreadable(PreflightRefused):
    """Entries of the library that the agent may not read.

    Args:
        paths: every one of them.
    """

    def __init__(self, paths: list[str]) -> None:
        listing = "".join(f"\n  {path}" for path in paths)
        super().__init__(
            f"the agent cannot read {len(paths)} entries of the library, nothing was published",
            hint=f"Give the agent's user read access, or leave them out with --exclude:{listing}",
        )
        self.paths = paths


class IntegrityError(Permanent):
    """What arrived, or what lies on the volume, is not what it should be."""


class FrameDamagedTwice(IntegrityError):
    """The same frame arrived damaged two times in a row."""


class FrameTooLarge(IntegrityError):
    """A frame that is, or decodes to, more than the manifest allows."""


class FrameSizeWrong(IntegrityError):
    """A frame that decodes to less than the manifest says."""


class ManifestTooLarge(IntegrityError):
    """A manifest of absurd length, in bytes, entries or in one line."""


class ManifestMalformed(IntegrityError):
    """A manifest, or a line of it, that cannot be read."""


class ManifestDigestWrong(IntegrityError):
    """A manifest whose digest is not the snapshot's name."""


class ManifestSumsWrong(IntegrityError):
    """A manifest whose entries, bytes or frames do not add up to what was announced."""


class IllegalPath(IntegrityError):
    """A name that could lead out of the library: absolute, ``..``, NUL, too long."""


class IllegalLink(IntegrityError):
    """A link target no filesystem can hold, or a hard link to something not in the manifest."""


class EntriesOutOfOrder(IntegrityError):
    """Entries that are not strictly sorted: a duplicate, or worse."""


class ParentNotDirectory(IntegrityError):
    """An entry below something that is not a directory of the manifest."""


class ProtocolViolation(IntegrityError):
    """An answer of the agent that the protocol does not allow."""


class PlexRefused(IntegrityError):
    """Plex did not do what it was asked, or is not the server that was moved."""


class TreeDiffers(IntegrityError):
    """The tree on the volume is not the one in the manifest, or not that of the receipt.

    Args:
        differences: one line each, path first.
        place: the tree that was looked at.
    """

    def __init__(self, differences: list[str], place: str) -> None:
        listing = "".join(f"\n  {line}" for line in differences)
        super().__init__(
            f"{len(differences)} differences between the tree and what it should be",
            path=place,
            hint=f"They are:{listing}",
        )
        self.differences = differences


class TargetConflict(Permanent):
    """The volume holds something that must not be touched or mixed with."""


class VolumeLocked(TargetConflict):
    """Another puller works on this volume."""


class StorageError(Permanent):
    """The volume, or the state folder, does not take what must be written."""


class NoSpace(StorageError):
    """The volume is full, or will be."""


class VolumeUnsuitable(StorageError):
    """The volume cannot keep what this library has: other names or links would fit."""


class AgentStorageError(StorageError):
    """The agent's state folder does not take what must be written."""


class SourceChanged(Permanent):
    """The library changed under a cold snapshot."""


class CutoverRefused(Permanent):
    """Plex cannot be stopped, or would not stay so, or somebody else has it stopped."""


class RepeatedFailure(Permanent):
    """A pull failed while Plex was stopped for it, and would fail again: Plex is left alone.

    Args:
        what: as for every error.
        path: likewise.
        hint: likewise.
        code: the exit code of that failure, and of this one.
    """

    def __init__(
        self, what: str, *, path: str | bytes | None = None, hint: str = "", code: int = 0
    ) -> None:
        super().__init__(what, path=path, hint=hint)
        self.code = code


class Interrupted(Permanent):
    """Stopped by a signal to us or to a worker process; the next run goes on from here."""


def printable(path: str | bytes) -> str:
    """``path`` fit for a message: control characters and undecodable bytes escaped."""
    text = path.decode("utf-8", "backslashreplace") if isinstance(path, bytes) else path
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def storage_error(error: OSError, path: str | bytes) -> StorageError:
    """The :class:`StorageError` for what the operating system said about ``path``."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(
            f"no space left while writing ({reason})",
            path=path,
            hint="Enlarge the volume and run again: what is there is kept.",
        )
    return StorageError(
        f"the filesystem refused ({reason})",
        path=path,
        hint="Check the volume's health, mount options and permissions, then run again.",
    )
