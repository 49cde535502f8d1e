"""The runbook explains exactly the failures that the puller reports."""

from __future__ import annotations

from rig.cluster.runbook import commands, last_words

from shared import errors
from shared.program.exit_codes import ExitCode, exit_code_for


def test_failures_are_explained_as_they_are_told() -> None:
    """Each listed failure has its real kind and exit code, and every code is explained."""
    told = last_words()
    for kind, name, code in told:
        error = getattr(errors, name)("x")
        assert isinstance(error, getattr(errors, kind))
        assert exit_code_for(error) == code
    published = {int(code) for code in ExitCode} - {ExitCode.OK, ExitCode.INTERNAL}
    assert {code for _, _, code in told} == published


def test_there_are_commands_for_both_places() -> None:
    """The runbook has commands for the VM and for the cluster."""
    assert len(commands("vm")) >= 8
    assert len(commands("cluster")) >= 15
