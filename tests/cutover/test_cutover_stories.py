"""Stories that end badly unless both sides check again, each named after its damage.

They run in the world of :mod:`rig.cutover.world`: whole moves with real files and records.
"""

from __future__ import annotations

import asyncio
import errno
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from rig.cutover import library as cutover_library
from rig.cutover.volume import Request
from rig.cutover.world import LEASE, World
from rig.mounts import NEEDS_ROOT, tmpfs

from initpuller.pull import passes
from initpuller.pull.options import Mode
from initpuller.pull.transfer import Assembly
from initpuller.volume.decision import OnExisting
from initpuller.volume.publish import publish
from shared.errors import CutoverRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Story:
    """Events at points of the pulls of one world."""

    def __init__(self) -> None:
        self.turns: dict[str, list[Callable[[], None]]] = {}

    def at(self, where: str, *turns: Callable[[], None]) -> None:
        """Have one of ``turns`` happen each time that a pull comes to ``where``."""
        self.turns[where] = list(turns)

    def __call__(self, where: str) -> None:
        """Let it happen."""
        if turns := self.turns.get(where):
            turns.pop(0)()


@pytest.fixture
def story() -> Story:
    """Return a story in which nothing happens until a test adds events."""
    return Story()


@pytest.fixture
def world(tmp_path: Path, story: Story) -> Iterator[World]:
    """Return a VM whose Plex runs, and two volumes on two filesystems."""
    shared_memory = Path("/dev/shm")  # noqa: S108
    with tempfile.TemporaryDirectory(dir=shared_memory if shared_memory.is_dir() else None) as at:
        yield World(tmp_path, Path(at), story)


def nothing() -> None:
    """A turn in which all goes well."""


def is_moved(world: World) -> bool:
    """Return whether the volume has what Plex left, and Plex is down for good."""
    is_down = not world.plex.running and world.control.standing().phase == "committed"
    return is_down and cutover_library.tree(world.volume.library) == world.library


def killed_at(world: World, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Run a pull whose puller is killed right before ``name`` of its publication."""

    def dies(*_: object) -> None:
        world.puller.is_dead = True
        world.puller.step()

    with monkeypatch.context() as patched:
        patched.setattr(publish, name, dies)
        assert world.pull() == "killed"


@pytest.mark.parametrize("step", ["rename_noreplace", "save_record"])
def test_move_undone_before_it_was_published(
    world: World, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """After an undo the old library is not published, and the next pull has Plex's new writes."""
    killed_at(world, monkeypatch, step)
    assert world.volume.phase == "publishing"
    world.undo()
    world.write()
    assert world.pull() == "done"
    assert is_moved(world)


@pytest.mark.parametrize("step", ["rename_noreplace", "save_record"])
def test_move_not_undone_is_published(
    world: World, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """A pull killed after the commit is finished by the next one without another stop."""
    killed_at(world, monkeypatch, step)
    starts = world.plex.starts
    assert world.pull() == "done"
    assert is_moved(world)
    assert world.plex.starts == starts


@pytest.mark.parametrize("number", range(8))
def test_container_that_ran_during_the_cutover_is_moved_as_it_left_the_library(
    world: World, story: Story, number: int
) -> None:
    """A container that runs and ends at any request of a pull loses none of its writes.

    It has no name for its runs, unlike a unit, so only the library shows that it ran.
    """
    world.plex.is_unit = False

    def runs() -> None:
        if not world.plex.running:
            world.plex.begin()
            world.write()
            world.plex.cut()

    for where in ("request", "scan", "frame", "verification"):
        story.at(where, *[nothing] * number, runs, *[nothing] * 60)
    assert world.pull() == "done"
    assert is_moved(world)


def test_publication_without_cutover_is_out_of_date(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A library verified while Plex was stopped is not published once Plex has run."""
    world.plex.cut()
    with monkeypatch.context() as patched:
        patched.setattr(publish, "rename_noreplace", lambda *_: world.fate("publication"))
        world.fate = lambda _: setattr(world.puller, "is_dead", True)
        world.pull(Request(Mode.MOVE_STOPPED))
    world.fate = lambda _: None
    world.plex.begin()
    world.write()
    assert world.pull() == "done"
    assert is_moved(world)


def test_changes_during_a_long_database_check_are_not_left_for_the_downtime(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the check takes an hour, another live pass moves the changes, so Plex is down briefly."""
    clock = [0.0]
    transferred: list[int] = []
    checking, run_live = asyncio.Event(), Assembly.run_live

    async def transfer(assembly: Assembly) -> bool:
        """Note each live pass; the check outlasts the first one."""
        is_exact = await run_live(assembly)
        transferred.append(world.writes)
        checking.set()
        return is_exact

    async def check(*_: object) -> dict[str, str]:
        """Take an hour longer than the transfer, while Plex writes."""
        await checking.wait()
        for _turn in range(100):
            await asyncio.sleep(0)
        clock[0] += 3600
        world.write()
        return {}

    monkeypatch.setattr(Assembly, "run_live", transfer)
    monkeypatch.setattr(passes, "check_databases", check)
    monkeypatch.setattr(passes, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    assert world.pull() == "done"
    assert is_moved(world)
    assert transferred == [1, 2]


def test_library_moved_between_ready_and_move(world: World) -> None:
    """A library on a new disk is moved as it is there."""
    assert world.pull(Request(Mode.PRESEED)) == "done"
    world.move_library()
    world.write()
    assert world.pull() == "done"
    assert is_moved(world)


def test_library_moved_while_plex_is_stopped_for_the_move(world: World, story: Story) -> None:
    """The committed folder is the one that Plex used last."""
    story.at("scan", nothing, world.move_library)
    world.pull()
    assert world.control.standing().phase != "committed" or is_moved(world)
    assert world.pull() == "done"
    assert is_moved(world)


@pytest.mark.parametrize("on_existing", [OnExisting.SKIP, OnExisting.FAIL])
def test_name_taken_while_plex_is_stopped(
    world: World, story: Story, on_existing: OnExisting
) -> None:
    """If the name is taken during the stop, Plex runs again and the pull fails."""
    story.at("scan", nothing, world.volume.take_name)
    assert world.pull(Request(on_existing=on_existing)) == "TargetConflict"
    world.wait(10.0)  # far less than a lease: until Plex was seen running
    assert world.plex.running
    assert world.control.standing().phase == "idle"
    assert (world.volume.library / "not ours").exists()
    shutil.rmtree(world.volume.library)
    assert world.pull() == "done"
    assert is_moved(world)


def test_name_taken_after_the_commit(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A foreign library after the commit fails the pull, and ours stays in staging."""
    killed_at(world, monkeypatch, "rename_noreplace")
    world.volume.take_name()
    assert world.pull(Request(on_existing=OnExisting.SKIP)) == "TargetConflict"
    assert not world.published
    assert world.pull(Request(on_existing=OnExisting.SET_ASIDE)) == "done"
    assert is_moved(world)


@NEEDS_ROOT
@pytest.mark.parametrize("on_existing", list(OnExisting))
def test_library_is_a_mount_point(world: World, on_existing: OnExisting) -> None:
    """If Library is a mount point, the pull fails before Plex is stopped."""
    starts = world.plex.starts
    with tmpfs(world.volume.library):
        assert world.pull(Request(on_existing=on_existing)) == "TargetConflict"
    assert world.control.standing().stops == 0
    assert (world.plex.running, world.plex.starts) == (True, starts)


@NEEDS_ROOT
def test_own_folder_on_another_filesystem(world: World) -> None:
    """The publishing rename is tried before Plex is stopped."""
    with tmpfs(Path(world.volume.layout.folder)):
        assert world.pull() == "VolumeUnsuitable"
        assert world.control.standing().stops == 0
        assert world.plex.running


@pytest.mark.parametrize("takes", [3.0, 12.0, 100.0])
@pytest.mark.parametrize("is_unit", [True, False])
def test_slow_stop(world: World, takes: float, is_unit: bool) -> None:  # noqa: FBT001
    """A stop that outlasts the agent's wait does not leave Plex down."""
    world.plex.is_unit, world.plex.stop_takes = is_unit, takes
    ended = world.pull()
    assert ended == ("done" if takes < 5 else "CutoverRefused")
    if ended != "done":
        world.wait(200.0)
        assert world.plex.running
        assert world.control.standing().phase == "idle"


def test_agent_killed_during_a_slow_stop(world: World, story: Story) -> None:
    """A restarted agent waits for the end of the stop, and starts Plex."""
    world.plex.is_unit, world.plex.stop_takes = False, 12.0
    story.at("request", nothing, nothing, lambda: setattr(world.agent, "left", 6))
    world.pull()
    world.is_agent_up = False
    world.clock += 1.0
    world.start_agent()
    world.wait(200.0)
    assert world.plex.running
    assert world.control.standing().phase == "idle"


def test_stop_that_is_not_allowed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused stop is not undone: Plex is not started, and the next pull is possible."""

    def refused(*_: object) -> None:
        raise CutoverRefused("the agent's user may not stop it")

    monkeypatch.setattr(world.plex, "check_fence", refused)
    starts = world.plex.starts
    assert world.pull() == "CutoverRefused"
    assert world.control.standing().phase == "idle"
    assert world.plex.running
    assert world.plex.starts == starts


def test_permanent_failure_under_the_stop(world: World, story: Story) -> None:
    """With endless retries by a kubelet, a permanent failure stops Plex only once."""

    def breaks() -> None:
        world.volume_fault = errno.EIO

    story.at("scan", nothing, breaks)
    assert world.pull() == "StorageError"
    world.wait(10.0)
    starts = world.plex.starts
    for _ in range(5):
        world.volume_fault = None
        story.at("scan", nothing, breaks)
        assert world.pull() == "RepeatedFailure"
    assert world.plex.starts == starts
    assert world.plex.running
    world.volume_fault = None
    story.at("scan")
    assert world.pull(Request(retry_failed=True)) == "done"
    assert is_moved(world)


def test_volume_full_under_the_stop(world: World, story: Story) -> None:
    """The next run frees the incomplete content of the last one, and can write."""
    story.at("scan", nothing, lambda: setattr(world, "volume_fault", errno.ENOSPC))
    assert world.pull() == "NoSpace"
    world.volume_fault = None
    world.wait(LEASE)
    assert world.plex.running
    assert world.pull(Request(retry_failed=True)) == "done"
    assert is_moved(world)


@pytest.mark.parametrize("was_backed_up", [True, False])
def test_state_folder_restored_while_plex_is_stopped(
    world: World,
    story: Story,
    was_backed_up: bool,  # noqa: FBT001
) -> None:
    """An agent with a restored record of no cutover still starts Plex."""
    if was_backed_up:
        world.back_up_state()

    def restored() -> None:
        world.restore_state()
        world.puller.is_dead = True

    story.at("verification", restored)
    assert world.pull() == "killed"
    assert not world.plex.running
    world.wait(LEASE + 30)
    assert world.plex.running


@pytest.mark.parametrize("was_backed_up", [True, False])
def test_state_folder_restored_after_the_commit(
    world: World,
    was_backed_up: bool,  # noqa: FBT001
) -> None:
    """Plex stays fenced over a restore and a boot, and an undo is possible."""
    if was_backed_up:
        world.back_up_state()
    assert world.pull() == "done"
    world.restore_state()
    world.reboot(5.0)
    assert not world.plex.running
    assert world.control.standing().phase == "committed"
    world.undo()
    assert world.plex.running


def test_package_purged_after_the_move(world: World) -> None:
    """Plex stays down without the agent, and an undo after reinstallation starts it."""
    assert world.pull() == "done"
    world.purge()
    world.reboot(5.0)
    assert not world.plex.running
    world.start_agent()
    world.undo()
    assert world.plex.running


def test_record_removed_by_hand_while_plex_is_stopped(world: World, story: Story) -> None:
    """If the record is removed during the stop, Plex is still started."""

    def removed() -> None:
        Path(world.state, "cutover.json").unlink()
        world.puller.is_dead = True

    story.at("verification", removed)
    assert world.pull() == "killed"
    assert not world.plex.running
    world.wait(LEASE + 30)
    assert world.plex.running
