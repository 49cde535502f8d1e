"""Every change of a pull's record, as pure functions: the table of docs/states.md, without I/O.

::

    none ──begin──► transferring ──prepared──► committing ──committed──► publishing ──► (receipt)
                      │      ▲ └───────────────prepared─────────────────────▲  │
                      └──────┘◄───────────── unpublished, taken_back ──────────┘
                  resume, next_snapshot
"""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Concatenate, NamedTuple, ParamSpec

from msgspec.structs import replace

from initpuller.volume.records.state import Phase, State
from shared.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from initpuller.volume.fidelity import Fidelity
    from initpuller.volume.records.receipt import Receipt
    from shared.wire.protocol import Snapshot, StopFailure

P = ParamSpec("P")


class Row(NamedTuple):
    """The phases that a transition is allowed from, and the phases that it may lead to."""

    before: tuple[Phase, ...]
    after: tuple[Phase, ...]


TABLE = {
    "begin": Row((), ("transferring",)),
    "resume": Row(("transferring",), ("transferring",)),
    "next_snapshot": Row(("transferring",), ("transferring",)),
    "prune_done": Row(("transferring",), ("transferring",)),
    "attributes_set": Row(("transferring",), ("transferring",)),
    "distrust": Row(("transferring",), ("transferring",)),
    "name_cutover": Row(("transferring",), ("transferring",)),
    "remember_failure": Row(("transferring", "committing"), ("transferring", "committing")),
    "prepared": Row(("transferring",), ("committing", "publishing")),
    "committed": Row(("committing",), ("publishing",)),
    "presumed_committed": Row(("committing",), ("publishing",)),
    "set_aside_planned": Row(("publishing",), ("publishing",)),
    "unpublished": Row(("committing", "publishing"), ("transferring",)),
    "taken_back": Row(("transferring", "publishing"), ("transferring",)),
}
"""All transitions, by name; ``begin`` starts from no record."""


class WrongPhase(StorageError):
    """A transition was asked for in a phase that it is not allowed from."""


def _listed(
    change: Callable[Concatenate[State, P], State],
) -> Callable[Concatenate[State, P], State]:
    """Have a transition check the phase that it is called in."""
    allowed = TABLE[change.__name__].before

    @wraps(change)
    def checked(state: State, /, *args: P.args, **kwargs: P.kwargs) -> State:
        if state.phase not in allowed:
            raise WrongPhase(
                f"the record of the pull says '{state.phase}', which does not allow"
                f" '{change.__name__}', only {' or '.join(allowed)} does",
                hint="Report this as a bug, with the log. Run pull again to resume.",
            )
        return change(state, *args, **kwargs)

    return checked


def begin(
    snapshot: Snapshot, owner: str, started: str, fidelity: Fidelity | None, *, prune: bool
) -> State:
    """Return the first record of a pull.

    Args:
        snapshot: what is to be transferred.
        owner: ``keep``, or the ``UID:GID`` of all files.
        started: now, RFC 3339.
        fidelity: what a probe has shown that the volume keeps, if one was made.
        prune: whether staging holds something of an earlier time.
    """
    return State("transferring", snapshot, owner, started, prune=prune, fidelity=fidelity)


@_listed
def resume(state: State, snapshot: Snapshot, owner: str, fidelity: Fidelity | None) -> State:
    """Return the record of another run for the same snapshot; arguments as for :func:`begin`.

    A new scan has found the same entries; what it left out may have changed.
    """
    about = replace(state.snapshot, omitted=snapshot.omitted)
    return replace(_next_run(state, owner, fidelity), snapshot=about)


@_listed
def next_snapshot(state: State, snapshot: Snapshot, owner: str, fidelity: Fidelity | None) -> State:
    """Return the record of a run for another snapshot of the same library.

    Arguments are as for :func:`begin`. What the earlier snapshot left must be pruned.
    """
    following = _next_run(state, owner, fidelity)
    return replace(following, snapshot=snapshot, prune=True, databases={}, receipt=None)


def _next_run(state: State, owner: str, fidelity: Fidelity | None) -> State:
    is_other_fidelity = bool(fidelity and state.fidelity and state.fidelity != fidelity)
    return replace(
        state,
        runs=state.runs + 1,
        reown=state.reown or state.owner != owner or is_other_fidelity,
        owner=owner,
        fidelity=fidelity or state.fidelity,
    )


@_listed
def name_cutover(state: State, cutover: str) -> State:
    """Return the record that names the cutover which the agent is about to hear of."""
    return replace(state, cutover=cutover)


@_listed
def remember_failure(state: State, failure: StopFailure) -> State:
    """Return the record with a failure for which Plex is not stopped again."""
    return replace(state, failure=failure)


@_listed
def prepared(state: State, phase: Phase, receipt: Receipt, top_mode: int) -> State:
    """Return the record of a library that is verified, and waits for its commit or rename.

    The phase is ``committing`` in a cutover, otherwise ``publishing``. The latter drops the name of
    an earlier run's cutover: Plex was not stopped for what is published now.
    """
    found = replace(state, phase=phase, receipt=receipt, top_mode=top_mode)
    cutover = state.cutover if phase == "committing" else ""
    return replace(found, cutover=cutover, databases=receipt.databases)


@_listed
def set_aside_planned(state: State, name: str) -> State:
    """Return the record that says under which name an existing library will be set aside."""
    receipt = None if state.receipt is None else replace(state.receipt, set_aside=name)
    return replace(state, receipt=receipt)


def _sets(name: str, **fields: object) -> Callable[[State], State]:
    """Return the transition called ``name``, which only sets ``fields``."""

    def change(state: State) -> State:
        return replace(state, **fields)

    change.__name__ = name
    return _listed(change)


prune_done = _sets("prune_done", prune=False)
"""Staging holds nothing that does not belong to the snapshot."""
attributes_set = _sets("attributes_set", reown=False)
"""All attributes in staging were set and compared, and are durable."""
distrust = _sets("distrust", prune=True, reown=True)
"""The next run prunes staging and sets all attributes again."""
committed = _sets("committed", phase="publishing", failure=None)
"""The agent has answered that Plex stays stopped for good."""
presumed_committed = _sets("presumed_committed", phase="publishing")
"""The user says, in place of the agent, that Plex is stopped."""
unpublished = _sets("unpublished", phase="transferring", receipt=None)
"""A pull is under way again, because its publication turned out to be out of date."""
taken_back = _sets("taken_back", phase="transferring", receipt=None, reown=True)
"""A pull resumes from a rehearsal. A Plex that ran on it may have changed attributes."""
