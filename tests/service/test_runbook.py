"""The runbook's messages of failures are those of the puller."""

from __future__ import annotations

from rig.cluster.runbook import commands, last_words

from shared import errors
from shared.program.exit_codes import ExitCode, exit_code_for


def test_failures_are_explained_as_they_are_told() -> None:
    """Each is of the kind, and has the exit code, that the table gives; every code is explained."""
    told = last_words()
    for kind, name, code in told:
        error = getattr(errors, name)("x")
        assert isinstance(error, getattr(errors, kind))
        assert exit_code_for(error) == code
    published = {int(code) for code in ExitCode} - {ExitCode.OK, ExitCode.INTERNAL}
    assert {code for _, _, code in told} == published


def test_there_are_commands_for_both_places() -> None:
    """The tests of VM and cluster have commands to run."""
    assert len(commands("vm")) >= 8
    assert len(commands("cluster")) >= 15
