"""The unit gives an agent up only for a cause that lasts until a person changes something."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import shutil
import socket
from itertools import count
from typing import TYPE_CHECKING

import pytest
from aiohttp import web
from campaign.shim import Operation, Shim, compile_shim
from rig.programs import Agent, AgentEnded, program
from rig.virtual_machine import REPOSITORY
from rig.volume import run_main

from agent.__main__ import main as agent_main
from agent.server.connections import Connections, Listener
from agent.server.tls import server_tls
from agent.settings import Limits, Settings
from shared.errors import ConfigurationError, PlexodusError, PreflightRefused, is_lasting
from shared.program.exit_codes import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FAILING_DISK = "/proc/self/mem"
"""To read its first byte is an EIO."""
UNIT = REPOSITORY / "agent" / "systemd" / "plexodus-agent.service"
CALLS = Operation.NAME | Operation.OPEN | Operation.READ


@pytest.fixture
def configured(new_agent: Callable[[Path], Agent], library: Path, tmp_path: Path) -> Agent:
    """Return a paired agent that does not run yet, with a file for each kind of setting."""
    agent = new_agent(library)
    agent.pair()
    agent.settings = tmp_path / "agent.toml"
    shutil.copy(agent.state / "agent.crt", tmp_path / "ca.crt")
    agent.settings.write_text(f'client_ca = "{tmp_path}/ca.crt"\n')
    return agent


def needed_file(agent: Agent, name: str) -> Path:
    """Return the path of the file with this name that ``agent`` needs for its start."""
    assert agent.settings is not None
    folder = agent.state if (agent.state / name).exists() else agent.settings.parent
    return folder / name


@pytest.mark.skipif(shutil.which("gcc") is None, reason="the shim is in C")
@pytest.mark.parametrize("name", ["agent.toml", "token.sha256", "agent.crt", "agent.key", "ca.crt"])
def test_each_call_about_a_file_that_fails_once(
    configured: Agent, tmp_path: Path, name: str
) -> None:
    """One EIO never ends the agent for good (exit code 2). Without it, the agent serves."""
    library = compile_shim(tmp_path)
    assert library is not None
    shim, path = Shim(library, tmp_path / "control"), needed_file(configured, name)
    codes = set()
    for skip in count():
        failing = shim.fail(CALLS, path, skip=skip, times=1, error=errno.EIO)
        try:
            configured.start(environment=shim.environment)
        except AgentEnded:
            codes.add(configured.ended)
            assert failing.count == 1, configured.log.read_text()
        configured.kill()
        if failing.count == 0:  # it makes no more calls
            break
    assert codes == {ExitCode.STORAGE}


def test_unit_starts_the_agent_again_after_each_other_exit_code() -> None:
    """Only exit code 2 ends it for good, and no shell has a part in that code.

    A shell that cannot open its script, because the VM is out of descriptors, ends with 2.
    """
    unit = UNIT.read_text()
    assert re.findall("(?m)^(Restart.*)$", unit) == [
        "Restart=on-failure",
        "RestartSec=2",
        f"RestartPreventExitStatus={ExitCode.CONFIGURATION:d}",
    ]
    [command] = re.findall("(?m)^ExecStart=(.*) serve$", unit)
    assert re.findall("(?m)^ExecStopPost=(.*) undo ", unit) == [command]
    script = (REPOSITORY / "agent" / "debian" / "plexodus-agent.sh").read_text()
    assert f'exec {command} "$@"\n' in script


def test_address_that_the_machine_does_not_have_yet(configured: Agent) -> None:
    """The agent is started again until the address is there, and until its port is free."""
    configured.settings = None
    with socket.create_server(("127.0.0.1", configured.port)):
        for address in (f"192.0.2.1:{configured.port}", f"127.0.0.1:{configured.port}"):
            files = ("--state", configured.state, "--library", configured.library)
            done = run_main(agent_main, "serve", *files, "--listen", address)
            assert done.code == ExitCode.PREFLIGHT, done.text
            assert "cannot listen (error while attempting to bind on address" in done.text
            assert address in done.text
    configured.start()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address"), PreflightRefused),
        (OSError(errno.EMFILE, "Too many open files"), PreflightRefused),
        (OSError("could not bind on any address"), PreflightRefused),  # as of Python 3.13
        (
            socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
            PreflightRefused,
        ),
        (PermissionError(errno.EACCES, "Permission denied"), ConfigurationError),
        (OSError(errno.EINVAL, "Invalid argument"), ConfigurationError),
    ],
)
async def test_port_that_cannot_be_opened(
    configured: Agent, monkeypatch: pytest.MonkeyPatch, error: OSError, kind: type[PlexodusError]
) -> None:
    """A port that the agent may not have is a mistake in the settings; another may be free soon."""

    async def refuse(*_: object, **__: object) -> None:
        """Fail as the system does."""
        raise error

    runner = web.AppRunner(web.Application())
    await runner.setup()
    tls = server_tls(Settings(state=str(configured.state)))
    listener = Listener(runner, "::1", 443, Connections(Limits(), tls, asyncio.Protocol))
    monkeypatch.setattr(asyncio.get_running_loop(), "create_server", refuse)
    with pytest.raises(kind, match=rf"cannot listen \({error.strerror or error}\): \[::1\]:443"):
        await listener.start()
    await runner.cleanup()


def test_only_causes_that_a_person_removes_are_lasting() -> None:
    """Each other number, even one that does not exist, is a reason for another start."""
    found = {
        errno.errorcode.get(number) for number in range(-20, 600) if is_lasting(OSError(number, ""))
    }
    assert found == {
        *("ENOENT", "ENOTDIR", "EISDIR", "ELOOP", "ENAMETOOLONG"),
        *("EACCES", "EPERM", "EINVAL"),
    }


def test_state_folder_that_fails_or_is_closed(configured: Agent) -> None:
    """A folder on a failing disk is tried again; one that is closed to the agent is not."""
    configured.settings = None
    files = ("--state", configured.state, "--library", configured.library)
    codes = {}
    for number in (errno.EIO, errno.EROFS, errno.ESTALE, errno.EACCES, errno.EPERM):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("agent.daemon.write_durably", _failing(number))
            codes[number] = run_main(agent_main, "serve", *files).code
    assert codes == {
        **dict.fromkeys((errno.EIO, errno.EROFS, errno.ESTALE), ExitCode.STORAGE),
        **dict.fromkeys((errno.EACCES, errno.EPERM), ExitCode.CONFIGURATION),
    }


def _failing(number: int) -> Callable[[str, bytes], None]:
    def fail(_path: str, _content: bytes) -> None:
        raise OSError(number, os.strerror(number))

    return fail


def test_removal_of_the_package_on_a_failing_disk(tmp_path: Path) -> None:
    """A Plex that has moved stays stopped although the settings cannot be read."""
    (tmp_path / "agent.toml").symlink_to(FAILING_DISK)
    files = ("--config", tmp_path / "agent.toml", "--state", tmp_path)
    done = program("plexodus-agent", "keep-stopped", *files)
    assert "The settings are ignored: the filesystem reported an error" in done.stderr
