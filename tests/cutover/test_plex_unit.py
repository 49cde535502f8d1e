"""Plex as a unit that systemd or polkit does not let the agent stop, or start."""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rig.plex.commands import only_plex
from rig.plex.fake_systemd import FakeSystemd
from rig.programs import Agent, Puller, program

from agent.cutover.context import CutoverContext
from agent.cutover.control import CutoverControl
from agent.cutover.record import CutoverRecord, Fence
from agent.cutover.start_block import keep_stopped, lift_start_blocks
from agent.cutover.state import Cutover
from agent.plex import remains
from agent.plex.systemd_unit import SystemdUnit
from agent.settings import Settings, load_settings
from shared.errors import CutoverRefused
from shared.wire.protocol import CutoverRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

UNIT = "plexmediaserver.service"
AGENT = 65534
REQUEST = CutoverRequest("a" * 32, "pod")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="the agent's user is not root's")


@pytest.fixture
def place() -> Iterator[Path]:
    """Return a folder that every user may pass."""
    with tempfile.TemporaryDirectory(prefix="plexodus-unit-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def state(place: Path) -> Path:
    """Return the agent's state folder."""
    (place / "state").mkdir()
    return place / "state"


@pytest.fixture
def systemd(place: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSystemd:
    """Put the stand-in's programs first in the path."""
    fake = FakeSystemd(place / "systemd")
    fake.here.mkdir()
    fake.make(f"ConditionPathExists=!{state}/fence")
    monkeypatch.setenv("PATH", f"{fake.here}:{os.environ['PATH']}")
    return fake


def control(state: Path, story: list[str]) -> CutoverControl:
    """Return the control that takes the steps; ``story`` has the events."""
    context = CutoverContext(60, 5, lambda event, _: story.append(event))
    return CutoverControl(str(state), SystemdUnit(UNIT), context)


def test_stop_refused_of_a_plex_that_runs_on(state: Path, systemd: FakeSystemd) -> None:
    """A Plex whose stop was refused is not started, and the refusal is reported."""
    systemd.refuses()
    cutover = control(state, [])
    with pytest.raises(CutoverRefused, match=r"did not stop .*Access denied"):
        cutover.begin(REQUEST)
    assert cutover.standing().phase == "idle"
    assert "did not stop" in cutover.standing().why
    assert [order.split()[0] for order in systemd.orders] == ["stop"]
    assert systemd.is_running()


def test_stop_without_an_answer_that_ends_plex_later(state: Path, systemd: FakeSystemd) -> None:
    """A unit that still runs after its stop has failed is watched, and is started when it ends."""
    clock = [1000.0]
    context = CutoverContext(60, 5, lambda *_: None, clock=lambda: clock[0])
    cutover = CutoverControl(str(state), SystemdUnit(UNIT), context)
    systemd.stalls()
    with only_plex():
        with pytest.raises(CutoverRefused, match="Connection timed out"):
            cutover.begin(REQUEST)
        systemd.stalls(now=False)
        assert cutover.standing().phase == "undoing"
        clock[0] += 1
        systemd.ends()
        for _ in range(4):
            cutover.tend()
            clock[0] += 1
    assert cutover.standing().phase == "idle"
    assert systemd.is_running()


def test_first_error_is_reported_when_the_start_fails_too(
    state: Path, systemd: FakeSystemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If stop and start fail, the first error is reported and the start is retried."""
    monkeypatch.setattr(SystemdUnit, "left", lambda _: ["process 1 (Plex Transcoder)"])
    systemd.skips()
    story: list[str] = []
    cutover = control(state, story)
    with pytest.raises(CutoverRefused, match="Plex Transcoder"):
        cutover.begin(REQUEST)
    assert cutover.standing().phase == "undoing"
    assert "Plex Transcoder" in cutover.standing().why
    systemd.skips(now=False)
    deadline = time.monotonic() + 20
    while cutover.standing().phase == "undoing":
        assert time.monotonic() < deadline
        cutover.tend()
    assert cutover.standing().phase == "idle"
    assert systemd.is_running()


def test_start_that_systemd_skips(state: Path, systemd: FakeSystemd) -> None:
    """A start that succeeds without effect does not count as a running Plex."""
    (systemd.here / "active").write_text("inactive\n")
    systemd.skips()
    with pytest.raises(CutoverRefused, match="a condition of the unit is not met"):
        SystemdUnit(UNIT).start()
    systemd.skips(now=False)
    SystemdUnit(UNIT).start()
    assert systemd.is_running()


def test_unit_named_without_its_suffix(
    systemd: FakeSystemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its processes are found under the full name of the control group."""
    found = {UNIT: ["1 (Plex Transcoder)"]}
    monkeypatch.setattr(remains, "processes_of", lambda unit: found.get(unit, []))
    assert "process 1 (Plex Transcoder)" in SystemdUnit("plexmediaserver").left()


@as_root
def test_polkit_refuses_the_agents_user(state: Path, systemd: FakeSystemd) -> None:
    """The agent's user is the one that polkit is asked about, and nothing is stopped for it."""
    os.chown(state, AGENT, AGENT)
    fence = str(state / "fence")
    SystemdUnit(UNIT).check_fence(fence)
    assert (systemd.here / "asker").read_text() == f"{AGENT}\n"
    systemd.refuses()
    with pytest.raises(CutoverRefused, match=r"may not stop plexmediaserver\.service") as refused:
        SystemdUnit(UNIT).check_fence(fence)
    assert "polkit" in str(refused.value.hint)
    assert systemd.orders == []


def test_pull_that_could_not_keep_plex_stopped(
    systemd: FakeSystemd, new_agent: Callable[[Path], Agent], made: Path, target: Path
) -> None:
    """A cutover that is not possible exits 17 before a frame is requested."""
    systemd.make("# no fence")
    agent = new_agent(made)
    agent.pair()
    agent.start()
    done = Puller(target, target.with_name("log"), agent.pairing, cutover=True).pull()
    assert done.code == 17, done.text
    assert "nothing would keep plexmediaserver.service from starting" in done.reason()
    assert not [request for request in agent.requests() if "frames" in request]
    assert systemd.orders == []
    assert not (target / "Library").exists()


@as_root
def test_undo_by_root_where_the_agents_user_may_not_start_plex(
    state: Path, systemd: FakeSystemd
) -> None:
    """Root starts Plex, and the files written stay the agent's."""
    record = Cutover("committed", "a" * 32, "pod", was_running=True)
    CutoverRecord(str(state)).save(record)
    Fence(str(state)).put_up("pod")
    (systemd.here / "active").write_text("inactive\n")
    for path in (state, *state.iterdir()):
        os.chown(path, AGENT, AGENT)
    program("plexodus-agent", "undo", "--state", state)
    assert systemd.orders == ["start by 0"]
    assert systemd.is_running()
    assert json.loads((state / "cutover.json").read_text())["phase"] == "idle"
    assert {path.stat().st_uid for path in state.iterdir()} == {AGENT}
    assert not (state / "fence").exists()


@pytest.mark.parametrize("spaces", ["", " "])
@pytest.mark.parametrize("name", ["ConditionPathExists", "AssertPathExists"])
def test_fence_of_an_earlier_version(
    state: Path, systemd: FakeSystemd, name: str, spaces: str
) -> None:
    """A drop-in with the assertion of an earlier version still counts."""
    systemd.make(f"{name}{spaces}={spaces}!{state}/fence")
    SystemdUnit(UNIT).check_fence(str(state / "fence"))
    systemd.make(f"{name}={state}/fence")
    with pytest.raises(CutoverRefused, match="nothing would keep") as refused:
        SystemdUnit("plexmediaserver").check_fence(str(state / "fence"))
    assert refused.value.path == f"/etc/systemd/system/{UNIT}.d/plexodus.conf"


@pytest.mark.parametrize(
    ("before", "after", "is_fenced"),
    [
        ("[Service]", "", False),
        ("# comment", "ConditionPathExists=", False),
        ("", "ConditionUser =", False),
        ("[Service]\n[Unit]", "AssertPathExists=", True),
        ("ConditionPathExists=", "[Service]\nConditionPathExists=", True),
        ("Description=a \\", "", False),
        ("Description=a \\\n# comment\nb", "# ConditionPathExists=", True),
    ],
)
@pytest.mark.parametrize("is_same_file", [True, False])
def test_fence_that_systemd_does_not_apply(
    state: Path,
    systemd: FakeSystemd,
    before: str,
    after: str,
    is_fenced: bool,  # noqa: FBT001
    is_same_file: bool,  # noqa: FBT001
) -> None:
    """A line of another section, or one that is reset later, does not keep Plex stopped."""
    fence = f"ConditionPathExists=!{state}/fence"
    systemd.make(f"{before}\n{fence}\n{after if is_same_file else ''}")
    systemd.drop_in("later", "" if is_same_file else f"[Unit]\n{after}\n")
    if is_fenced:
        SystemdUnit(UNIT).check_fence(str(state / "fence"))
        return
    with pytest.raises(CutoverRefused, match="nothing would keep"):
        control(state, []).begin(REQUEST)
    assert systemd.orders == []
    assert systemd.is_running()


@pytest.mark.parametrize(
    "line",
    [
        'unit = "my-plex.service"',
        "unit='my-plex.service'",
        "\tunit\t=\t'my-plex'",
        '"unit"="my-plex"',
    ],
)
def test_removed_after_the_move_with_another_unit(tmp_path: Path, line: str) -> None:
    """Removing the package blocks the unit of the settings, in any notation."""
    (tmp_path / "agent.toml").write_text(f'{line}\nstate = "{tmp_path}"\n')
    settings = load_settings(str(tmp_path / "agent.toml"), {})
    units = tmp_path / "units"
    assert keep_stopped(settings, str(units)) == []
    Fence(str(tmp_path)).put_up("pod")
    path = units / "my-plex.service.d" / "50-plexodus-moved.conf"
    assert keep_stopped(settings, str(units)) == [str(path)]
    text = path.read_text()
    assert "ConditionPathExists=!" in text
    assert f"rm {path}" in text
    (path.parent / "other.conf").touch()
    assert lift_start_blocks(str(units))
    assert [each.name for each in path.parent.iterdir()] == ["other.conf"]
    assert not lift_start_blocks(str(units))


def test_removed_after_the_move_whose_settings_were_changed_since(tmp_path: Path) -> None:
    """The stopped unit is blocked too, even without a fence."""
    record = Cutover("committed", starting=["systemctl", "start", "--", "old.service"])
    CutoverRecord(str(tmp_path)).save(record)
    settings = Settings(state=str(tmp_path), unit="new.service")
    units = tmp_path / "units"
    keep_stopped(settings, str(units))
    assert sorted(each.name for each in units.iterdir()) == ["new.service.d", "old.service.d"]


def test_removed_where_plex_is_a_container(tmp_path: Path) -> None:
    """No unit is blocked, because the command stopped the container for good."""
    CutoverRecord(str(tmp_path)).save(Cutover("committed", starting=["docker", "start", "plex"]))
    settings = Settings(state=str(tmp_path), stop_command=["x"], start_command=["y"])
    assert keep_stopped(settings, str(tmp_path / "units")) == []
