"""Options, variables, messages and output of the programs, as scripts and people see them."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from typing import TYPE_CHECKING

import pytest
from rig.programs import Agent, Puller, running
from rig.virtual_machine import REPOSITORY
from rig.volume import grow_tiny, pull, run_main, run_puller

from agent.__main__ import main as agent_main
from agent.cli import cli as agent_cli
from initpuller.__main__ import main as puller_main
from initpuller.cli import cli as puller_cli
from shared import __version__
from shared.native import state
from shared.program.exit_codes import ExitCode
from shared.wire.pairing import parse_pairing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import click

TOKEN = "A0b-" * 10 + "_zZ"  # the same in every test process
FINGERPRINT = "0123456789abcdef" * 4
NOWHERE = f"plexodus://{TOKEN}@127.0.0.1:1?fp={FINGERPRINT}"
COMMANDS = [
    pytest.param(group, name, id=f"{group.name}-{name}")
    for group in (agent_cli, puller_cli)
    for name in group.commands
]


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """Start one agent with a tiny library for all tests."""
    place = tmp_path_factory.mktemp("commands")
    agent = Agent(place / "state", grow_tiny(place / "vm" / "Library"), place / "agent.log")
    agent.pair()
    with running(agent):
        yield agent


@pytest.mark.parametrize(("group", "name"), COMMANDS)
def test_every_option_has_its_variable(group: click.Group, name: str) -> None:
    """``--some-option`` can be set as ``PLEXODUS_SOME_OPTION``."""
    for option in group.commands[name].params:
        (spelled,) = option.opts
        variable = "PLEXODUS_" + spelled.removeprefix("--").replace("-", "_").upper()
        assert option.envvar == variable


def test_pull_by_variables_alone(target: Path, agent: Agent, tmp_path: Path) -> None:
    """Every option of pull, status and verify works from the environment."""
    pairing = tmp_path / "pairing"
    pairing.write_text(f"\n {agent.pairing}\n")
    (target / "Library").mkdir()
    done = run_puller(
        "pull",
        PLEXODUS_PAIRING_FILE=str(pairing),
        PLEXODUS_TARGET=str(target),
        PLEXODUS_OWNER=f"{os.geteuid()}:{os.getegid()}",
        PLEXODUS_EXCLUDE="thumb\nempty",
        PLEXODUS_JOBS="1",
        PLEXODUS_ON_EXISTING="set-aside",
        PLEXODUS_NO_CUTOVER="1",
    )

    assert done.code == ExitCode.OK, done.text
    receipt = json.loads((target / ".plexodus" / "receipt.json").read_text())
    assert receipt["exclude"] == ["*.pid", "thumb", "empty"]
    assert receipt["owner"] == f"{os.geteuid()}:{os.getegid()}"
    assert receipt["set_aside"] is not None
    assert not (target / "Library" / "Plex" / "thumb").exists()
    status = run_puller("status", PLEXODUS_TARGET=str(target), PLEXODUS_JSON="1")
    assert json.loads(status.out)["phase"] == "done"
    assert run_puller("verify", PLEXODUS_TARGET=str(target)).code == ExitCode.OK


@pytest.mark.parametrize(
    ("unknown", "near"),
    [("PLEXODUS_TARGTE", "PLEXODUS_TARGET"), ("PLEXODUS_ON_EXISTS", "PLEXODUS_ON_EXISTING")],
)
def test_misspelled_variable_names_its_neighbour(target: Path, unknown: str, near: str) -> None:
    """A misspelled variable exits 2, and nothing is written to the volume."""
    done = run_puller("pull", "--target", target, pairing=NOWHERE, **{unknown: "x"})

    assert done.code == ExitCode.CONFIGURATION
    assert unknown in done.reason()
    assert f"Did you mean {near}?" in done.reason()
    assert list(target.iterdir()) == []


def test_variables_of_a_kubernetes_service_are_no_mistake(target: Path) -> None:
    """The links of a Service called plexodus are accepted in every pod."""
    links = {"PLEXODUS_SERVICE_HOST": "10.0.0.1", "PLEXODUS_PORT": "tcp://10.0.0.1:8443"}

    assert run_puller("status", "--target", target, **links).code == ExitCode.OK


def test_version_of_both_programs() -> None:
    """Both programs report the package's version, and whether they are accelerated."""
    for done in (run_puller("--version"), run_main(agent_main, "--version")):
        assert done.code == ExitCode.OK
        version, accelerator = done.out.splitlines()
        assert version.endswith(f", version {__version__}")
        assert accelerator == f"accelerator: {state}"


@pytest.mark.parametrize(("group", "name"), COMMANDS)
def test_help_shows_an_example_that_parses(group: click.Group, name: str) -> None:
    """Each command's help has an example that the command accepts."""
    main = agent_main if group is agent_cli else puller_main
    program = "plexodus-agent" if group is agent_cli else "plexodus-puller"
    shown = run_main(main, name, "--help")

    assert shown.code == ExitCode.OK
    text = shown.out.partition("Example")[2].replace("\\\n", " ")
    examples = re.findall(rf"^ +{program} +{name} (.*)$", text, re.MULTILINE)
    assert examples, shown.out
    for example in examples:
        words = shlex.split(example.partition(" > ")[0])
        group.commands[name].make_context(name, words)


@pytest.mark.parametrize(
    "options",
    [
        ("--jobs", "0"),
        ("--jobs", "17"),
        ("--jobs", "many"),
        ("--on-existing", "overwrite"),
        ("--owner", "plex:plex"),
        ("--owner", "1000"),
        ("--owner", "-1:0"),
        ("--owner", "4294967295:0"),
        ("--unknown",),
        ("argument",),
        ("--target", "/nonexistent/folder"),
        ("--target", "/etc/passwd"),
        ("--pairing-file", "/etc/passwd"),
        ("--exclude", "caf\udce9"),
    ],
)
def test_wrong_option_value(target: Path, options: tuple[str, ...]) -> None:
    """A wrong value exits 2 with a message, and nothing is written to the volume."""
    done = run_puller("pull", "--target", target, *options, pairing=NOWHERE)

    assert done.code == ExitCode.CONFIGURATION, done.text
    assert done.text.strip()
    assert list(target.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"secret-" + TOKEN.encode(),
        NOWHERE.replace("plexodus:", "https:").encode(),
        NOWHERE[:-1].encode(),
        NOWHERE.replace(TOKEN, TOKEN[:-1]).encode(),
        NOWHERE.replace(":1?", ":99999?").encode(),
        NOWHERE.replace(":1?", "?").encode(),
        NOWHERE.replace("fp=", "").encode(),
        NOWHERE.encode() + b"\xff\xfe",
        NOWHERE.replace("127.0.0.1", "[::1").encode(),
    ],
)
def test_bad_pairing_file(target: Path, tmp_path: Path, content: bytes) -> None:
    """A bad pairing file exits 2 without its content, which may be most of the secret."""
    pairing = tmp_path / "pairing"
    pairing.write_bytes(content)

    done = run_puller("pull", "--target", target, "--pairing-file", pairing)

    assert done.code == ExitCode.CONFIGURATION, done.text
    assert TOKEN[:-1] not in done.text
    assert "pairing" in done.reason()
    assert list(target.iterdir()) == []


def test_no_pairing_or_two(target: Path, tmp_path: Path) -> None:
    """No pairing, two, or a missing file exit 2, naming both ways to give one."""
    neither = run_puller("pull", "--target", target)
    both = run_puller("pull", "--target", target, "--pairing-file", "x", pairing=NOWHERE)
    gone = run_puller("pull", "--target", target, "--pairing-file", tmp_path / "gone")

    assert [each.code for each in (neither, both, gone)] == [ExitCode.CONFIGURATION] * 3
    for text in (neither.reason(), both.reason()):
        assert "--pairing-file" in text
        assert "PLEXODUS_PAIRING" in text
    assert str(tmp_path / "gone") in gone.reason()


def test_pair_prints_one_line_and_a_new_token_each_time(tmp_path: Path) -> None:
    """Stdout has only the pairing string, and the certificate stays."""
    arguments = ("pair", "--state", tmp_path / "state", "--address", "[2001:db8::1]:8443")
    first, second = (run_main(agent_main, *arguments) for _ in range(2))

    pairings = [parse_pairing(each.out) for each in (first, second)]
    assert [each.out.count("\n") for each in (first, second)] == [1, 1]
    assert (pairings[0].host, pairings[0].port) == ("2001:db8::1", 8443)
    assert pairings[0].token != pairings[1].token
    assert pairings[0].fingerprint == pairings[1].fingerprint
    assert all(each.token not in first.text + second.text for each in pairings)


def test_secret_is_nowhere_to_be_seen(agent: Agent, target: Path, tmp_path: Path) -> None:
    """The secret is in no log, error, help text, process list or volume, on either side."""
    token = parse_pairing(agent.pairing).token
    pairing = tmp_path / "pairing"
    pairing.write_text(agent.pairing)
    puller = Puller(target, tmp_path / "log", agent.pairing)
    wrong = agent.pairing.replace(token, token[::-1])
    shown = [
        puller.pull("--owner", "keep").text,
        pull(tmp_path, agent, "--owner", agent.pairing).text,
        run_puller("pull", "--target", tmp_path, pairing=wrong).text,
        run_puller("pull", "--target", agent.pairing, pairing=agent.pairing).text,
        run_puller("pull", "--help", pairing=agent.pairing).out,
        agent.log.read_text(),
    ]
    process = subprocess.Popen(
        [*puller.command("--pairing-file", pairing)[:1], "pull", "--pairing-file", pairing],
        stderr=subprocess.PIPE,
    )
    shown.append(subprocess.run(["ps", "axww"], check=True, capture_output=True, text=True).stdout)
    assert str(pairing) in shown[-1]
    shown.append(process.communicate(timeout=30)[1].decode())
    shown += [path.read_text(errors="replace") for path in target.rglob(".plexodus/*.json")]

    assert "published" in shown[0]
    for text in shown:
        assert token not in text
        assert token[::-1] not in text


def test_agent_that_cannot_serve(agent: Agent, tmp_path: Path) -> None:
    """An agent that cannot serve exits 2 with the reason."""
    fresh, port = tmp_path / "fresh", f"127.0.0.1:{agent.port}"
    fresh.mkdir()

    def serve(state: Path, library: Path, listen: str) -> str:
        arguments = ("--state", state, "--library", library, "--listen", listen)
        done = run_main(agent_main, "serve", *arguments)
        assert done.code == ExitCode.CONFIGURATION, done.text
        return done.text

    assert "plexodus-agent pair" in serve(fresh, agent.library, port)
    assert "HOST:PORT" in serve(agent.state, agent.library, "8443")
    done = run_main(agent_main, "pair", "--state", fresh, "--address", "nowhere")
    assert done.code == ExitCode.CONFIGURATION
    assert (done.out, list(fresh.iterdir())) == ("", [])


def test_agent_whose_library_is_not_there_yet(agent: Agent, tmp_path: Path) -> None:
    """Its exit code is one after which the unit starts it again, for as long as that takes."""
    unit = (REPOSITORY / "agent" / "systemd" / "plexodus-agent.service").read_text().splitlines()
    assert {"Restart=on-failure", "StartLimitIntervalSec=0"} <= set(unit)
    assert "RestartPreventExitStatus=2" in unit
    for library in (tmp_path / "gone", agent.log):
        done = run_main(agent_main, "serve", "--state", agent.state, "--library", library)
        assert done.code == ExitCode.PREFLIGHT, done.text
        assert str(library) in done.text
