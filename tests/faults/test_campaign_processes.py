"""The campaign's judges of processes: ends that nobody caused, and exit codes of an undo."""

from __future__ import annotations

import json
import signal
import subprocess
from contextlib import ExitStack
from types import SimpleNamespace
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest
from campaign.site import LIBRARY, Site
from campaign.story import Break, Mode, Story
from campaign.undos import Undos
from campaign.vm import Vm
from rig.plex.commands import only_plex
from rig.programs import Finished

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_STORY = Story(1, Mode.MOVE, None, 1, True, "ext4", Break(0, False), (), ())


def library_of(made: Path, folder: Path) -> Path:
    """Return a copy of the library, as a story finds it in its folder."""
    subprocess.run(["cp", "-a", made, folder / LIBRARY], check=True)
    return folder / LIBRARY


@pytest.fixture
def site(made: Path, tmp_path: Path) -> Iterator[Site]:
    """Return a site on which nothing runs."""
    (tmp_path / "volume").mkdir()
    library_of(made, tmp_path)
    site = Site(_STORY, tmp_path, made, None, ())
    with site.network:
        yield site


@pytest.fixture
def vm(made: Path, tmp_path: Path) -> Vm:
    """Return a VM on which nothing runs."""
    return Vm(tmp_path / "vm", library_of(made, tmp_path), None, has_unit=True)


def ended(*command: str) -> subprocess.Popen[bytes]:
    """Return a command that has ended."""
    process = subprocess.Popen(command)
    process.wait()
    return process


def set_phase(vm: Vm, phase: str) -> None:
    """Write the agent's record of the cutover."""
    vm.agent.state.mkdir(exist_ok=True)
    (vm.agent.state / "cutover.json").write_text(json.dumps({"phase": phase, "serial": 1}))


def pull_until(site: Site, *sent: signal.Signals) -> list[str]:
    """Let a pull end by SIGKILL or SIGSEGV, and return the violations."""
    number = signal.SIGKILL if signal.SIGKILL in sent else signal.SIGSEGV
    puller = SimpleNamespace(
        begin=lambda *_options, **_more: subprocess.Popen(["sleep", "60"]),
        finished=lambda process: Finished(process.wait(), [], ""),
    )
    with patch.object(site, "_puller", puller):
        process = site.begin_pull(())
        for each in sent:
            assert site.signal_puller(each)
        process.send_signal(number)
        process.wait()
        assert site.finished().code == -number
    return site.violations


def test_puller_that_the_campaign_killed(site: Site) -> None:
    """It is not reported."""
    assert pull_until(site, signal.SIGKILL) == []


def test_puller_that_crashed(site: Site) -> None:
    """It is reported, also after a signal that does not end it, or one to an earlier pull."""
    assert pull_until(site, signal.SIGCONT) == [
        "the puller was ended by signal 11, which nobody sent"
    ]


def test_agent_that_crashed(site: Site) -> None:
    """It is reported unless the campaign has sent the signal."""
    vm, agent = site.vm, subprocess.Popen(["sleep", "60"])
    with patch.object(vm.agent, "_process", agent):
        site.check_agent()
        vm.is_up = True
        agent.send_signal(signal.SIGSEGV)
        agent.wait()
        site.check_agent()
    assert site.violations == ["the agent was ended by signal 11, which nobody sent"]
    with subprocess.Popen(["sleep", "60"]) as other, patch.object(vm.agent, "_process", other):
        with patch.object(type(vm.agent), "pid", other.pid):
            vm.signal_agent(signal.SIGKILL)
        other.wait()
        site.check_agent()
    assert len(site.violations) == 1


@pytest.mark.parametrize("code", [0, 1, 2, 12, 15])
def test_agent_that_ended_by_itself(site: Site, code: int) -> None:
    """It is reported with a bug, and if its unit would not start it again."""
    with patch.object(site.vm.agent, "_process", ended("sh", "-c", f"exit {code}")):
        site.check_agent()
    assert len(site.violations) == (code in (0, 1, 2))


@pytest.mark.parametrize("is_of_unit", [False, True])
def test_undo_with_an_exit_code_that_is_not_documented(vm: Vm, is_of_unit: bool) -> None:  # noqa: FBT001
    """It is reported once, whoever has started it."""
    undos, commands = Undos(vm, 0.0), vm.undos_of_unit if is_of_unit else vm.undos
    commands.append(ended("false"))
    assert undos.faults() == ["'plexodus-agent undo' ended with 1"]
    assert undos.faults() == []


def test_undo_that_failed_as_documented(vm: Vm) -> None:
    """Exit codes of the documentation are accepted, and so is a command that a power cut killed."""
    vm.undos += [ended("sh", "-c", f"exit {code}") for code in (15, 17)]
    vm.undos.append(subprocess.Popen(["sleep", "60"]))
    vm.cut_power()
    assert vm.undos[-1].returncode == -signal.SIGKILL
    assert Undos(vm, 0.0).faults() == []


@pytest.mark.parametrize("phase", ["committed", "idle"])
def test_undo_that_undid_nothing(vm: Vm, phase: str) -> None:
    """An undo that ends with 0 is reported unless Plex runs, and unless a later pull has begun."""
    set_phase(vm, phase)
    undos = Undos(vm, 0.0)
    vm.undos.append(ended("true"))
    undos.pull_has_ended()
    assert undos.faults() == []
    vm.undos.append(ended("true"))
    (found,) = undos.faults()
    assert "ended with 0, and after it" in found
    assert phase in found


def test_undo_after_which_plex_runs(vm: Vm) -> None:
    """It is not reported."""
    set_phase(vm, "idle")
    vm.undos.append(ended("true"))
    with only_plex(), ExitStack() as stack:
        vm.plex.start()
        stack.callback(vm.plex.stop)
        assert Undos(vm, 0.0).faults() == []
