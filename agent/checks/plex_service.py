"""Checks of the Plex that runs on the VM: its version, and whether the agent can stop it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from agent.cutover.record import CutoverRecord, Fence
from agent.cutover.stop_history import StopHistory
from agent.cutover.stop_proof import users
from agent.plex.folder import database_folder
from agent.plex.server import is_running
from agent.plex.services import plex_service
from shared.checks import CheckId, Outcome
from shared.errors import CutoverRefused, StorageError

if TYPE_CHECKING:
    from agent.checks.source_facts import SourceFacts
    from shared.checks import Check


def check_version(facts: SourceFacts) -> Check:
    """Return the version of the source's Plex, for the choice of the pod's image."""
    if (version := facts.version) is None:
        return CheckId.SOURCE_VERSION.warning(
            "neither the server, nor its package, nor its log tells it",
            "Make sure that the pod's image is not older: the database's schema only goes forward.",
        )
    advice = f"Run the same in the pod (image tag {version}), or a newer one; never an older one."
    return CheckId.SOURCE_VERSION.passed(str(version), advice)


def check_running(_facts: SourceFacts) -> Check:
    """Return whether Plex runs. Both answers are fine."""
    if is_running():
        return CheckId.PLEX_RUNNING.passed("it runs: a pull has it stopped at the end")
    return CheckId.PLEX_RUNNING.passed("nothing listens on its port")


def check_cutover(facts: SourceFacts) -> Check:
    """Return whether the agent can stop Plex and keep it stopped.

    A problem is a warning here, because a pull without a cutover does not need it.
    """
    state = facts.settings.state
    try:
        plex_service(facts.settings).check_fence(Fence(state).path)
    except CutoverRefused as error:
        found = str(error.what if error.path is None else f"{error.what}: {error.path}")
        return CheckId.CUTOVER.warning(found, error.hint)
    return _check_last_stop(state)


def check_cutover_before_move(facts: SourceFacts) -> Check:
    """Return the same for a preflight, which does not claim that a command works.

    A pull does not repeat this warning: for one that has Plex stopped, it would be a failure.
    """
    found = check_cutover(facts)
    if found.outcome is not Outcome.PASS:
        return found
    if facts.settings.stop_command:
        return CheckId.CUTOVER.warning(
            "stop_command is not tried here, and nothing but start_command may start Plex again",
            "Before the move, run both once as the agent's user: 'runuser -u plexodus -- …'.",
        )
    return _check_users(facts) or found


def _check_users(facts: SourceFacts) -> Check | None:
    """Return a warning if a process that the agent would not stop has a database open."""
    plex, folder = plex_service(facts.settings), database_folder(facts.path)
    path = ""
    with suppress(OSError, CutoverRefused):  # the stop reports it
        path = next((path for path, is_seen in users(plex, folder) if not is_seen), "")
    if not path:
        return None
    return CheckId.CUTOVER.warning(
        f"a process that the agent would not stop has a database open: {path}",
        "If it is Plex, name its unit or container in the agent's settings, then restart the"
        " agent. Close all other programs that have the database open before the move.",
    )


def _check_last_stop(state: str) -> Check:
    """Return the result of the last stop: only a real stop shows whether a command works."""
    history = StopHistory()
    with suppress(StorageError):  # the start of a cutover reports it
        history = CutoverRecord(state).load().history
    if not history.is_stop_refused or history.failure is None:
        return CheckId.CUTOVER.passed("Plex can be stopped, and stays so")
    failure = history.failure
    return CheckId.CUTOVER.warning(
        f"the last stop was refused ({failure.at}): {failure.what}",
        f"{failure.hint} Then restart the agent, or add --retry-failed to pull.".strip(),
    )
