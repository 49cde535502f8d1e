"""The campaign's judgments of one run, as tables."""

from __future__ import annotations

import pytest
from campaign.machine import Outcome
from campaign.table import Table
from campaign.verdicts import FailedRun, may_change, may_have_undone
from campaign.volume import Kind

_ABSENT, _FOREIGN, _REHEARSAL, _MOVED = Kind


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        *((FailedRun(before, _MOVED, -9), True) for before in (_ABSENT, _FOREIGN, _REHEARSAL)),
        *(
            (FailedRun(before, _MOVED, code, is_committed=True), False)
            for before in (_ABSENT, _FOREIGN, _REHEARSAL)
            for code in (11, 13, 14, 15, 16, 17, 130)
        ),
        (FailedRun(_ABSENT, _MOVED, 15, is_committed=True, failed_calls=1), True),
        (FailedRun(_FOREIGN, _MOVED, 15, is_committed=True, failed_calls=2), True),
        (FailedRun(_ABSENT, _MOVED, 15, failed_calls=1), False),
        (FailedRun(_ABSENT, _MOVED, 17, is_undone=True), True),
        (FailedRun(_MOVED, _ABSENT, 17, is_undone=True), True),
        (FailedRun(_MOVED, _ABSENT, -9, is_committed=True, failed_calls=1), False),
        (FailedRun(_ABSENT, _REHEARSAL, -9), True),
        (FailedRun(_ABSENT, _REHEARSAL, 15, failed_calls=1), True),
        (FailedRun(_ABSENT, _REHEARSAL, 130), False),
        (FailedRun(_REHEARSAL, _ABSENT, 17), True),
        (FailedRun(_FOREIGN, _ABSENT, -9), True),
        (FailedRun(_FOREIGN, _ABSENT, 15, is_committed=True, failed_calls=1), False),
    ],
)
def test_change_by_a_pull_that_failed(run: FailedRun, expected: bool) -> None:  # noqa: FBT001
    """A library appears by a failed pull if it was killed, or could not undo the publication."""
    assert may_change(run) == expected


@pytest.mark.parametrize(
    ("code", "is_committed", "expected"),
    [
        *((code, False, True) for code in (None, 0, 15, 17, -9)),
        *((code, True, False) for code in (None, 15, 17, -9)),
        (0, True, True),
    ],
)
def test_undo_that_failed(code: int | None, is_committed: bool, expected: bool) -> None:  # noqa: FBT001
    """It excuses no second server while the record says that the move is committed."""
    assert may_have_undone(code, is_committed=is_committed) == expected


def test_fault_that_never_takes_place() -> None:
    """It is named once it was drawn often enough, and a fault that took place once is not."""
    table = Table()
    for number in range(40):
        assert table.without_effect() == []
        happened = ["some"] if number == 0 else []
        missed = ["never", "some"] if number > 0 else ["never"]
        outcome = Outcome(number, str(number), "move", happened, missed, [0])
        table.add(outcome, Outcome(number, str(number), "move"))
    assert table.without_effect() == ["never"]
