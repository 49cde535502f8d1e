"""Exit codes, on which scripts, probes and charts rely. See docs/exit-codes.md."""

from __future__ import annotations

from enum import IntEnum

from shared import errors


class ExitCode(IntEnum):
    """One code for each kind of failure. Scripts must treat unknown codes as failures, too."""

    OK = 0
    INTERNAL = 1
    CONFIGURATION = 2
    AUTHENTICATION = 10
    UNREACHABLE = 11
    PREFLIGHT = 12
    INTEGRITY = 13
    CONFLICT = 14
    STORAGE = 15
    SOURCE_CHANGED = 16
    CUTOVER = 17
    INTERRUPTED = 130


_CODES: tuple[tuple[type[errors.PlexodusError], ExitCode], ...] = (
    (errors.ConfigurationError, ExitCode.CONFIGURATION),
    (errors.AuthenticationError, ExitCode.AUTHENTICATION),
    (errors.AgentUnreachable, ExitCode.UNREACHABLE),
    (errors.PlexUnreachable, ExitCode.UNREACHABLE),
    (errors.VolumeLocked, ExitCode.UNREACHABLE),
    (errors.SnapshotGone, ExitCode.UNREACHABLE),
    (errors.PreflightRefused, ExitCode.PREFLIGHT),
    (errors.FrameDamaged, ExitCode.INTEGRITY),
    (errors.IntegrityError, ExitCode.INTEGRITY),
    (errors.TargetConflict, ExitCode.CONFLICT),
    (errors.StorageError, ExitCode.STORAGE),
    (errors.SourceChanged, ExitCode.SOURCE_CHANGED),
    (errors.CutoverEnded, ExitCode.CUTOVER),
    (errors.CutoverRefused, ExitCode.CUTOVER),
    (errors.RepeatedFailure, ExitCode.CUTOVER),
    (errors.Interrupted, ExitCode.INTERRUPTED),
)


def exit_code_for(error: BaseException) -> ExitCode:
    """Return the exit code of ``error``; :attr:`ExitCode.INTERNAL` for an unexpected exception."""
    if isinstance(error, errors.RepeatedFailure) and error.code in list(ExitCode)[1:]:
        return ExitCode(error.code)
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code
    return ExitCode.INTERNAL
