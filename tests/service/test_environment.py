"""Misspelled variables are errors with a hint, and Kubernetes' own variables are accepted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from rig.programs import clean_environment

from agent.cli import cli as agent_cli
from initpuller.cli import cli as puller_cli
from shared.errors import ConfigurationError
from shared.program.command_line import check_environment, known_variables
from shared.program.exit_codes import ExitCode
from shared.wire.pairing import PAIRING_VARIABLE

KNOWN = known_variables(puller_cli) | {PAIRING_VARIABLE}


@pytest.mark.parametrize(
    ("name", "neighbour"),
    [
        ("PLEXODUS_TARGTE", "PLEXODUS_TARGET"),
        ("PLEXODUS_PARING", "PLEXODUS_PAIRING"),
        ("PLEXODUS_PAIRINGFILE", "PLEXODUS_PAIRING_FILE"),
        ("PLEXODUS_target", "PLEXODUS_TARGET"),
        ("PLEXODUS_ONEXISTING", "PLEXODUS_ON_EXISTING"),
        ("PLEXODUS_EXCLUDES", "PLEXODUS_EXCLUDE"),
        ("PLEXODUS_OWNERS", "PLEXODUS_OWNER"),
    ],
)
def test_misspelled_variable_names_its_neighbour(name: str, neighbour: str) -> None:
    """The message has both names, and not the value, which may be secret."""
    with pytest.raises(ConfigurationError) as caught:
        check_environment({name: "s3cret"}, KNOWN)
    assert name in str(caught.value)
    assert f"Did you mean {neighbour}?" in str(caught.value)
    assert "s3cret" not in str(caught.value)


SERVICE_LINKS = {
    "PLEXODUS_SERVICE_HOST": "10.96.0.17",
    "PLEXODUS_SERVICE_PORT": "8443",
    "PLEXODUS_SERVICE_PORT_HTTPS": "8443",
    "PLEXODUS_PORT": "tcp://10.96.0.17:8443",
    "PLEXODUS_PORT_8443_TCP": "tcp://10.96.0.17:8443",
    "PLEXODUS_PORT_8443_TCP_ADDR": "10.96.0.17",
    "PLEXODUS_PORT_8443_TCP_PORT": "8443",
    "PLEXODUS_PORT_8443_TCP_PROTO": "tcp",
    "PLEXODUS_AGENT_SERVICE_HOST": "fd00:10:96::11",
    "PLEXODUS_AGENT_PORT": "tcp://[fd00:10:96::11]:8443",
    "PLEXODUS_AGENT_PORT_53_UDP_PROTO": "udp",
}


def test_service_links_are_let_through() -> None:
    """Variables that Kubernetes sets beside a Service called plexodus are no misspelled options."""
    check_environment(SERVICE_LINKS, KNOWN)


@pytest.mark.parametrize("name", SERVICE_LINKS)
def test_name_of_a_service_link_with_another_value(name: str) -> None:
    """A variable named like a service link, with another value, is a misspelled option."""
    with pytest.raises(ConfigurationError):
        check_environment({name: "/etc/plexodus"}, KNOWN)


def test_foreign_variables_do_not_matter() -> None:
    """Variables without our prefix are ignored."""
    check_environment({"PATH": "/bin", "XPLEXODUS_TARGET": "", "PLEXODUSTARGET": ""}, KNOWN)


def test_every_option_has_its_variable() -> None:
    """The variable is PLEXODUS_ and the option's name, in both programs."""
    for program in (agent_cli, puller_cli):
        for command in program.commands.values():
            for option in command.params:
                long = max(option.opts, key=len).removeprefix("--")
                assert option.envvar == "PLEXODUS_" + long.upper().replace("-", "_")


@pytest.mark.parametrize("program", ["plexodus-agent", "plexodus-puller"])
def test_program_refuses_a_misspelled_variable(program: str) -> None:
    """A misspelled variable beside service links exits as a wrong configuration."""
    done = subprocess.run(
        [Path(sys.executable).parent / program, "--version"],
        check=False,
        capture_output=True,
        text=True,
        env=clean_environment() | SERVICE_LINKS | {"PLEXODUS_STATES": "x"},
    )
    assert done.returncode == ExitCode.CONFIGURATION
    assert "Did you mean PLEXODUS_" in done.stderr
    assert done.stdout == ""
