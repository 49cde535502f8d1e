"""Pure judgments of one run: what it may leave, given how it ended."""

from __future__ import annotations

from dataclasses import dataclass

from campaign.volume import Kind


@dataclass(frozen=True)
class FailedRun:
    """A pull that did not exit with 0, and left something else under the library's name."""

    before: Kind
    """What had the library's name."""
    after: Kind
    code: int
    """Exit code; minus the signal if it was killed."""
    is_committed: bool = False
    """Whether the library may appear: the move is committed, or needs no commit."""
    failed_calls: int = 0
    """Number of its calls below the volume that have failed."""
    is_undone: bool = False
    """Whether a person may have undone the move."""


def may_have_undone(code: int | None, *, is_committed: bool) -> bool:
    """Return whether a command of a person may have undone the last move.

    One that failed, was killed or still runs has changed nothing while the record says that the
    move is committed.

    Args:
        code: its exit code; None while it runs.
        is_committed: whether the record of the cutover says so now.
    """
    return code == 0 or not is_committed


def may_change(run: FailedRun) -> bool:
    """Return whether a pull that failed may have left that.

    A pull that was killed may have published. One that ends by itself undoes its publication. It
    cannot if the volume refuses the removal of the receipt. When a move begins, a rehearsal returns
    to staging, and so does a library whose move was undone.
    """
    was_killed = run.code < 0
    if run.after is Kind.MOVED:
        has_been_refused = run.is_committed and run.failed_calls > 0
        return was_killed or has_been_refused or run.is_undone
    if run.before is Kind.MOVED:
        return run.is_undone
    if run.after is Kind.REHEARSAL:
        return was_killed or run.failed_calls > 0
    if run.before is Kind.FOREIGN:
        return was_killed
    return run.before is Kind.REHEARSAL and run.after is Kind.ABSENT
