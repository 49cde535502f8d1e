"""The owner in the settings of Plex's image owns every entry on arrival."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from rig.programs import Puller
from rig.unprivileged import GROUP, USER, UnprivilegedPuller, open_place

from initpuller.volume.ownership import plex_owner
from shared.program.exit_codes import ExitCode

if TYPE_CHECKING:
    from rig.programs import Agent


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_images_start_script_finds_nothing_to_change(puller: Puller) -> None:
    """With ``PLEX_UID`` and ``PLEX_GID``, find sees no entry of another owner."""
    environment = {"PLEX_UID": "1234", "PLEX_GID": "1235"}
    assert puller.pull(environment=environment).code == ExitCode.OK
    others = ["(", "!", "-uid", "1234", "-o", "!", "-gid", "1235", ")"]
    command = ["find", str(puller.target / "Library"), *others]
    assert subprocess.run(command, check=True, capture_output=True).stdout == b""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_sidecar_that_runs_as_plex_does(agent: Agent) -> None:
    """The sidecar can read the records of root's pull, and add to them."""
    with open_place() as place:
        target = place / "config"
        target.mkdir()
        pulled = Puller(target, place / "log", agent.pairing).pull("--owner", f"{USER}:{GROUP}")
        assert pulled.code == ExitCode.OK, pulled.text
        agent.stop()

        done = UnprivilegedPuller(target, place / "log", agent.pairing).pull()

        assert done.code == ExitCode.OK, done.text
        assert "everything is there" in done.text
        records = target / ".plexodus"
        assert {each.stat().st_uid for each in (records, *records.iterdir())} == {USER}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_owner_option_overrides_the_images_variables(puller: Puller) -> None:
    """The puller's option overrides the variables of Plex's image."""
    done = puller.pull("--owner", "7:8", environment={"PLEX_UID": "1234"})
    assert done.code == ExitCode.OK, done.text
    info = (puller.target / "Library").stat()
    assert (info.st_uid, info.st_gid) == (7, 8)


def test_variable_that_is_no_number(puller: Puller) -> None:
    """A variable that is not a number is refused by name before any request."""
    done = puller.pull(environment={"PLEX_UID": "plex"})
    assert done.code == ExitCode.CONFIGURATION
    assert "PLEX_UID" in done.reason()


@pytest.mark.parametrize(
    ("environment", "owner"),
    [
        ({}, None),
        ({"PLEX_UID": "5"}, "5:1000"),
        ({"PLEX_GID": "6"}, "1000:6"),
        ({"PLEX_UID": "5", "PLEX_GID": "6"}, "5:6"),
        ({"PUID": "7", "PGID": "8"}, "7:8"),
        ({"PUID": "7"}, "7:911"),
        ({"PUID": "5", "PGID": "6", "PLEX_UID": "5", "PLEX_GID": "6"}, "5:6"),
    ],
)
def test_one_of_them_is_enough(environment: dict[str, str], owner: str | None) -> None:
    """If only one of both variables is set, the other is 1000, as in the image."""
    assert plex_owner(environment) == owner


def test_two_pairs_that_differ(puller: Puller) -> None:
    """PLEX_UID and PUID with different owners exit 2 with both names, before any request."""
    done = puller.pull(environment={"PLEX_UID": "5", "PLEX_GID": "6", "PUID": "7", "PGID": "8"})
    assert done.code == ExitCode.CONFIGURATION
    assert "PLEX_UID and PLEX_GID are 5:6" in done.reason()
    assert "PUID and PGID are 7:8" in done.reason()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_linuxservers_variables_say_whose_all_is(puller: Puller) -> None:
    """PUID and PGID set the owner of every entry."""
    done = puller.pull(environment={"PUID": "1234", "PGID": "1235"})
    assert done.code == ExitCode.OK, done.text
    info = (puller.target / "Library").stat()
    assert (info.st_uid, info.st_gid) == (1234, 1235)
