"""The record of a pull: what may follow which phase, and that each change is on disk at once."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from initpuller.volume.fidelity import Fidelity
from initpuller.volume.records import transitions
from initpuller.volume.records.layout import Layout
from initpuller.volume.records.pull_record import PullRecord
from initpuller.volume.records.receipt import Receipt
from initpuller.volume.records.state import Phase, State, load_state
from initpuller.volume.records.transitions import TABLE, WrongPhase
from shared.errors import StorageError
from shared.wire.protocol import Library, OmittedList, Snapshot, StopFailure

if TYPE_CHECKING:
    from collections.abc import Callable

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "states.md"
PHASES: tuple[Phase, ...] = ("transferring", "committing", "publishing")
LIBRARY = Library(host="vm", id="1", name="Library", path="/srv/Library")


def _filled(record: Any, /, **given: object) -> Any:  # noqa: ANN401
    """Return a value of type ``record`` with something in each required field."""
    samples: dict[type, object] = {str: "x", int: 1, list: [], dict: {}}
    for each in msgspec.structs.fields(record):
        if each.required and each.name not in given:
            bare = each.type
            while hasattr(bare, "__origin__"):
                bare = bare.__origin__
            given[each.name] = samples[bare]
    return record(**given)


SNAPSHOT = _filled(Snapshot, id="a" * 64, kind="cold", library=LIBRARY)
OTHER = _filled(Snapshot, id="b" * 64, kind="live", library=LIBRARY)
RECEIPT = _filled(Receipt, format=1, library=LIBRARY, databases={"a database": "sound"})
FAILURE = _filled(StopFailure, what="the volume is full")
ARGUMENTS: dict[str, tuple[object, ...]] = {
    "resume": (SNAPSHOT, "1:1", None),
    "next_snapshot": (OTHER, "1:1", None),
    "name_cutover": ("c" * 32,),
    "remember_failure": (FAILURE,),
    "prepared": ("committing", RECEIPT, 0o700),
    "set_aside_planned": ("Library.set-aside",),
}


def _state(phase: Phase = "transferring", **changes: Any) -> State:  # noqa: ANN401
    return State(phase, SNAPSHOT, "keep", "2026-01-01", **changes)


def _transition(name: str) -> Callable[..., State]:
    return getattr(transitions, name)  # type: ignore[no-any-return]


def test_documented_table_is_the_one_in_code() -> None:
    """docs/states.md lists each transition with the phases that the code allows."""
    text = DOCUMENT.read_text().partition("## The record and its changes")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([a-z_]+) \| ([^|]*) \| ([^|]*) \|", text, re.MULTILINE)
    documented = {name: (before, after) for name, before, after in rows[1:]}

    assert documented == {
        name: (", ".join(row.before) or "no record", ", ".join(row.after))
        for name, row in TABLE.items()
    }


def test_every_function_of_the_module_is_in_the_table() -> None:
    """No change of the record bypasses the table."""
    functions = {
        name
        for name, each in inspect.getmembers(transitions, inspect.isfunction)
        if not name.startswith("_") and each.__module__ == transitions.__name__
    }

    assert functions == set(TABLE)


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("name", [each for each in TABLE if each != "begin"])
def test_a_change_is_made_only_in_its_phases(name: str, phase: Phase) -> None:
    """A change leads to a listed phase, and is refused, by name, in each phase that is not."""
    row, arguments = TABLE[name], ARGUMENTS.get(name, ())

    if phase in row.before:
        assert _transition(name)(_state(phase), *arguments).phase in row.after
    else:
        with pytest.raises(WrongPhase, match=f"'{phase}'.*'{name}'"):
            _transition(name)(_state(phase), *arguments)


def test_refused_change_leaves_the_record_as_it_was(tmp_path: Path) -> None:
    """A publication that nobody prepared cannot be committed, in memory or on disk."""
    (tmp_path / ".plexodus").mkdir()
    record = PullRecord(Layout(str(tmp_path)))
    before = record.save(_state())

    with pytest.raises(WrongPhase):
        record.apply(transitions.committed)

    assert record.state == load_state(record.layout) == before


def test_each_change_is_on_disk_when_it_returns(tmp_path: Path) -> None:
    """Another process reads exactly what the writer holds, from the first change to the last."""
    (tmp_path / ".plexodus").mkdir()
    record = PullRecord(Layout(str(tmp_path)))
    assert record.state is None
    record.save(transitions.begin(SNAPSHOT, "keep", "2026-01-01", None, prune=False))
    steps: list[tuple[str, tuple[object, ...]]] = [
        ("next_snapshot", (OTHER, "1:1", Fidelity())),
        ("prune_done", ()),
        ("name_cutover", ("c" * 32,)),
        ("remember_failure", (FAILURE,)),
        ("prepared", ("committing", RECEIPT, 0o700)),
        ("committed", ()),
        ("set_aside_planned", ("aside",)),
        ("unpublished", ()),
    ]

    for name, arguments in steps:
        changed = record.apply(_transition(name), *arguments)
        assert record.state == load_state(record.layout) == changed

    record.drop()
    assert record.state is None
    assert load_state(record.layout) is None


def test_failed_write_is_not_taken_for_a_change(tmp_path: Path) -> None:
    """If the volume does not take a record, the run continues with what the volume has."""
    (tmp_path / ".plexodus").mkdir()
    record = PullRecord(Layout(str(tmp_path)))
    before = record.save(_state())
    (tmp_path / ".plexodus" / "state.json.new").mkdir()

    with pytest.raises(StorageError):
        record.apply(transitions.name_cutover, "c" * 32)

    assert record.state == before


def test_publication_without_a_cutover_drops_an_earlier_runs_cutover() -> None:
    """The agent is never asked about a cutover that stopped Plex for other content."""
    state = _state(cutover="c" * 32)

    without = transitions.prepared(state, "publishing", RECEIPT, 0o700)
    within = transitions.prepared(state, "committing", RECEIPT, 0o700)

    assert (without.cutover, within.cutover) == ("", "c" * 32)
    assert without.databases == RECEIPT.databases


def test_other_owner_or_fidelity_has_all_attributes_set_again() -> None:
    """A run with another owner, or on a volume that keeps other times, trusts no attribute."""
    state = _state(fidelity=Fidelity())
    coarse = Fidelity(time_step_ns=1000)

    assert not transitions.resume(state, SNAPSHOT, "keep", Fidelity()).reown
    assert not transitions.resume(state, SNAPSHOT, "keep", None).reown
    assert transitions.resume(state, SNAPSHOT, "1:1", None).reown
    assert transitions.resume(state, SNAPSHOT, "keep", coarse).reown
    assert transitions.next_snapshot(state, OTHER, "keep", coarse).fidelity == coarse
    assert transitions.next_snapshot(state, OTHER, "keep", None).fidelity == Fidelity()


def test_resumed_run_lists_what_the_new_scan_left_out() -> None:
    """The same entries keep the time of their first scan, which decides what can be trusted."""
    newest = OmittedList(1, 0, 30, "d" * 64)
    again = msgspec.structs.replace(SNAPSHOT, created="later", omitted=newest)

    after = transitions.resume(_state(), again, "keep", None)

    assert after.snapshot == msgspec.structs.replace(SNAPSHOT, omitted=newest)


def test_a_new_snapshot_keeps_what_is_about_the_move() -> None:
    """Start, runs, cutover and failure survive a new scan; what was about the old one does not."""
    state = _state(cutover="c" * 32, failure=FAILURE, databases={"a": "b"})

    after = transitions.next_snapshot(state, OTHER, "keep", None)

    assert (after.started, after.runs, after.cutover) == (state.started, 2, state.cutover)
    assert (after.failure, after.databases, after.prune) == (FAILURE, {}, True)
    assert after.snapshot == OTHER
