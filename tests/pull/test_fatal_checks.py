"""Which results of the checks end a pull, and how both sides treat a peer of another release."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from initpuller.pull.checks.fatal_checks import excluded_checks, fatal_outcomes
from initpuller.pull.checks.target_checks import TARGET_CHECKS
from initpuller.pull.options import Mode, PullOptions
from initpuller.volume.decision import OnExisting
from initpuller.volume.ownership import Ownership
from shared.checks import Check, CheckId, Outcome
from shared.wire.pairing import Pairing
from shared.wire.protocol import LIBRARY, LIBRARY_SERVER

if TYPE_CHECKING:
    from rig.programs import Agent

WARNING, FAILURE = Outcome.WARNING, Outcome.FAILURE

MOVE: dict[str, Any] = {}
RETRY_FAILED = {"retry_failed": True}
PRESEED = {"mode": Mode.PRESEED}
PRESEED_ANY_FOLDER = {"mode": Mode.PRESEED_STOPPED}
NO_CUTOVER = {"mode": Mode.MOVE_STOPPED}
REHEARSE = {"mode": Mode.REHEARSE}


def options(**chosen: Any) -> PullOptions:  # noqa: ANN401 - as PullOptions takes them
    """Return the options of a pull."""
    return PullOptions(
        pairing=Pairing("vm", 1, "f" * 64, "token"),
        target="/config",
        ownership=Ownership(None, privileged=False),
        exclude=[],
        jobs=1,
        on_existing=OnExisting.SKIP,
        **chosen,
    )


@pytest.mark.parametrize(
    ("check", "chosen", "fatal"),
    [
        (CheckId.LIBRARY_DATABASE, MOVE, {FAILURE}),
        (CheckId.LIBRARY_DATABASE, NO_CUTOVER, {FAILURE}),
        (CheckId.LIBRARY_DATABASE, REHEARSE, {FAILURE}),
        (CheckId.VERSION, PRESEED, {FAILURE}),
        (CheckId.UNKNOWN, MOVE, {FAILURE}),
        (CheckId.CUTOVER, MOVE, {WARNING, FAILURE}),
        (CheckId.CUTOVER, RETRY_FAILED, {FAILURE}),
        (CheckId.CUTOVER, PRESEED, {FAILURE}),
        (CheckId.CUTOVER, NO_CUTOVER, {FAILURE}),
        (CheckId.CUTOVER, REHEARSE, {FAILURE}),
        (CheckId.LIBRARY, MOVE, {WARNING, FAILURE}),
        (CheckId.LIBRARY, RETRY_FAILED, {WARNING, FAILURE}),
        (CheckId.LIBRARY, PRESEED, {WARNING, FAILURE}),
        (CheckId.LIBRARY, PRESEED_ANY_FOLDER, set()),
        (CheckId.LIBRARY, NO_CUTOVER, set()),
        (CheckId.LIBRARY, REHEARSE, {FAILURE}),
    ],
)
def test_outcomes_that_end_a_pull(
    check: CheckId, chosen: dict[str, Any], fatal: set[Outcome]
) -> None:
    """A pull that would stop Plex for nothing is refused, and one that needs no Plex is not."""
    assert fatal_outcomes(check, options(**chosen)) == fatal


@pytest.mark.parametrize(
    ("pattern", "excluded"),
    [
        ("Metadata", {CheckId.METADATA_FOLDER}),
        ("/Application Support/Plex Media Server/Media", {CheckId.MEDIA_FOLDER}),
        ("M*", {CheckId.METADATA_FOLDER, CheckId.MEDIA_FOLDER}),
        ("Cache", set()),
    ],
)
def test_checks_of_excluded_folders_do_not_matter(pattern: str, excluded: set[CheckId]) -> None:
    """A folder that stays on the VM cannot end the pull."""
    assert excluded_checks([pattern], "Library") == excluded
    assert excluded_checks([], "Library") == set()


def test_identifiers_and_registries() -> None:
    """No check is registered twice, and no identifier looks like another one."""
    registered = [check.id for check in TARGET_CHECKS]
    assert len(set(registered)) == len(registered)
    assert msgspec.convert("a check of a later release", CheckId) is CheckId.UNKNOWN
    for check in CheckId:
        assert msgspec.convert(check.value, CheckId) is check


class CheckOf01(msgspec.Struct, forbid_unknown_fields=True):
    """A check as pullers of release 0.1 read it."""

    name: str
    outcome: str
    found: str
    advice: str


@pytest.mark.parametrize("route", [LIBRARY, LIBRARY_SERVER])
def test_puller_of_an_earlier_release_reads_the_report(agent: Agent, route: str) -> None:
    """A puller of release 0.1 refuses unknown fields, so it gets no ``id``."""
    before = json.loads(agent.get(route))["checks"]
    assert msgspec.convert(before, list[CheckOf01])
    now = json.loads(agent.get(f"{route}?identify-checks=true"))["checks"]
    assert "" not in {check.pop("id") for check in now}
    assert [check["name"] for check in now] == [check["name"] for check in before]


def test_unknown_value_of_check_ids_is_refused(agent: Agent) -> None:
    """An unknown value gets 400 with the choices."""
    with closing(agent.connect()) as http:
        http.request(
            "GET",
            f"{LIBRARY_SERVER}?identify-checks=some",
            headers={"Authorization": f"Bearer {agent.token}"},
        )
        answer = http.getresponse()
        problem = json.loads(answer.read())
    assert answer.status == 400
    assert "true or false" in problem["title"]


def test_agent_of_an_earlier_release_is_understood() -> None:
    """A check without ``id`` can be read and shown, and no rule of a pull applies to it."""
    check = {"name": "library", "outcome": "warning", "found": "x", "advice": ""}
    assert msgspec.convert(check, Check) == Check("library", Outcome.WARNING, "x")
