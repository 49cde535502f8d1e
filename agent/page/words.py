"""The state of the move in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.page.timeline import Milestone, Stage
from shared.checks import duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.page.story import MoveStory
    from agent.page.timeline import Step
    from agent.settings import Settings
    from shared.wire.protocol import CutoverPhase, CutoverStanding

_TO_DO = {
    Milestone.PAIRED: "Run 'plexodus-agent pair' on the VM.",
    Milestone.CHECKED: "Run 'plexodus-puller preflight', or start the pod.",
    Milestone.COPIED: "Run 'plexodus-puller pull', or start the pod. Plex runs while it copies.",
    Milestone.STOPPED: (
        "A pull copies what has changed, and has the agent stop Plex for the rest. If none runs,"
        " run 'plexodus-puller pull', or start the pod."
    ),
    Milestone.PUBLISHED: "The puller gives the library its name on the volume.",
    Milestone.STARTED: "The pod starts Plex on the volume.",
}
"""What has to happen for a step."""
_UNDER_WAY = {
    Milestone.CHECKED: "Both sides are checked.",
    Milestone.COPIED: "Plex runs. What changes meanwhile is transferred again.",
    Milestone.STOPPED: "Plex has the order to stop.",
    Milestone.CHANGES: "What has changed since the last live pass is transferred.",
    Milestone.VERIFIED: "The volume is compared with the source.",
    Milestone.COMMITTED: "The agent puts up the fence.",
}


def what_next(steps: Sequence[Step], phase: CutoverPhase) -> str:
    """Return what is under way, or has to happen next."""
    for step in steps:
        if step.stage is Stage.NOW:
            return _UNDER_WAY[step.id]
    for step in steps:
        if step.stage is Stage.NEXT:
            return _TO_DO.get(step.id, "The puller continues.")
    if phase == "committed":
        return "The move is complete."
    return (
        "The library runs in the cluster, but was not moved: nothing keeps Plex on the VM stopped."
    )


def trouble(standing: CutoverStanding, about: str) -> str:
    """Return what somebody has to look at: failures, and why the last cutover was undone."""
    said = [about] if about else []
    if standing.phase in ("idle", "undoing") and standing.why:
        said.append(f"Plex on the VM was started again: {standing.why}.")
    if (failure := standing.failure) is not None and failure.what not in about:
        said.append(f"{failure.what}. {failure.hint}".strip())
    if standing.pause and standing.phase == "idle":
        said.append(f"The agent waits {duration(standing.pause)} before it stops Plex again.")
    return " ".join(said)


def lease(standing: CutoverStanding) -> str:
    """Return what happens to Plex if the puller is silent."""
    match standing.phase:
        case "idle":
            return "none: Plex was not stopped by the agent"
        case "stopping":
            return "none yet: Plex has not stopped"
        case "undoing":
            return "over: Plex is being started"
        case "committed":
            return "none: Plex stays stopped for good"
        case "stopped" | "committing":
            left = duration(standing.seconds) if standing.seconds else "a moment"
            return f"Plex is started again in {left}, unless the puller is heard of"


def fence(settings: Settings, phase: CutoverPhase, is_up: bool) -> str:  # noqa: FBT001 - a fact
    """Return what keeps Plex on the VM from starting."""
    if phase != "committed":
        return "down: it goes up with the commit"
    if settings.stop_command:
        return "none for a Plex without a unit: the agent stops it whenever it is started"
    if not is_up:
        return "missing: the agent puts it up again"
    if settings.container:
        return "up: the container has room for no process, and the agent stops what starts"
    return "up: systemd does not start Plex"


def in_cluster(story: MoveStory, is_published: bool) -> str:  # noqa: FBT001 - a fact
    """Return what is known of Plex in its pod."""
    said = story.in_cluster.about if story.in_cluster is not None else ""
    if story.was_undone_published:
        heard = f" Last heard of it: {said}." if said else ""
        return (
            f"the move was undone, but the volume has the library. Plex must not run there.{heard}"
        )
    if said:
        return said
    if is_published:
        return "nothing is known yet: its sidecar reports once Plex runs"
    return "not started: no library is published"


def puller(silence: float | None, silent: float) -> str:
    """Return what the puller does, or for how long it has been silent."""
    if silence is None:
        return "has asked for nothing since the agent was started"
    if silence < silent:
        return "is at work"
    return f"has been silent for {duration(silence)}. It resumes with what it has"


def downtime(seconds: float, phase: CutoverPhase, *, is_over: bool) -> str:
    """Return how long Plex is, or was, stopped by the latest attempt."""
    if not is_over:
        return f"{duration(seconds)} so far"
    if phase == "committed":
        return f"{duration(seconds)}, until Plex ran in the cluster or its library was published"
    return f"{duration(seconds)} in the last attempt, which is over"
