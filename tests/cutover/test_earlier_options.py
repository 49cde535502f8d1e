"""A run that finishes the move of an earlier one does not silently drop its own options."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from rig.cutover.cutovers import dies, moved, not_moved

from shared.program.exit_codes import ExitCode

if TYPE_CHECKING:
    from pathlib import Path

    from rig.plex.commands import PlexCommands
    from rig.programs import Agent, Puller

pytestmark = pytest.mark.long

SETTINGS = {"lease_seconds": 600.0, "stop_seconds": 30}
"""A lease that no test waits for."""
BEFORE_RENAME = "initpuller.volume.publish.publish", "publish"
BEFORE_COMMIT = "initpuller.agent_client.cutover", "CutoverClient.commit"
IGNORED = "an earlier run has verified this library"


@pytest.mark.parametrize(
    "options",
    [(), ("--set-preference", "FriendlyName=x"), ("--owner", "7:7", "--exclude", "Cache")],
    ids=["same", "preference", "owner and exclude"],
)
def test_options_that_come_too_late_are_named(
    agent: Agent, puller: Puller, plex: PlexCommands, library: Path, options: tuple[str, ...]
) -> None:
    """The user learns which options the published library does not have."""
    dies(puller, *BEFORE_RENAME)

    done = puller.pull(*options)

    assert done.code == ExitCode.OK, done.text
    moved(agent, puller, plex, library)
    warnings = [line for line in done.text.splitlines() if IGNORED in line]
    assert len(warnings) == bool(options)
    assert all(each in warnings[0] for each in options if each.startswith("--"))


def test_older_plex_in_the_pod_before_the_commit(
    agent: Agent, puller: Puller, plex: PlexCommands
) -> None:
    """Nothing is committed for a Plex that cannot read the database, and Plex runs on the VM."""
    dies(puller, *BEFORE_COMMIT)

    done = puller.pull("--plex-version", "1.2.0.1-abcdef012")

    assert done.code == ExitCode.PREFLIGHT, done.text
    assert "is older than the source's" in done.reason()
    not_moved(agent, puller, plex)


def test_older_plex_in_the_pod_after_the_commit(
    agent: Agent, puller: Puller, plex: PlexCommands, library: Path
) -> None:
    """Plex is stopped for good already, so the library is published, with a warning."""
    dies(puller, *BEFORE_COMMIT, after=True)

    done = puller.pull("--plex-version", "1.2.0.1-abcdef012")

    assert done.code == ExitCode.OK, done.text
    moved(agent, puller, plex, library)
    assert "is older than the source's" in done.text
