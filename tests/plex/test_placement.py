"""A cutover is refused unless Plex will find its files; Plex's own folder is placed correctly."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING
from unittest.mock import AsyncMock, patch

import pytest
from rig.mounts import NEEDS_ROOT, mounted
from rig.oracle import rsync_differences, sums_hold
from rig.plex.commands import only_plex
from rig.volume import Ended, fingerprint, grow_tiny, pull, run_main, run_puller

from agent.__main__ import main as agent_main
from agent.checks.placement import check_artwork, check_library, check_links
from initpuller.pull.checks.fatal_checks import CheckedSource
from initpuller.volume.foreign_library import is_skeleton
from shared.checks import CheckId, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rig.programs import Agent

SUPPORT, PLEX = "Application Support", "Plex Media Server"
SERVER = f"{SUPPORT}/{PLEX}"
FOLDERS = CheckId.METADATA_FOLDER, CheckId.MEDIA_FOLDER
ARTWORK = [partial(check_artwork, each) for each in FOLDERS]
DATABASES = f"{SERVER}/Plug-in Support/Databases"
DATABASE = f"{DATABASES}/com.plexapp.plugins.library.db"
CUTOVER = {"PLEXODUS_NO_CUTOVER": "0"}


@pytest.fixture
def library(made: Path, tmp_path: Path) -> Path:
    """Return a small Plex library that the test may change."""
    return shutil.copytree(made, tmp_path / "vm" / "Library", symlinks=True)


@pytest.fixture
def serve(new_agent: Callable[[Path], Agent], tmp_path: Path) -> Callable[[Path], Agent]:
    """Return a function that starts an agent for a folder, with commands that stop a Plex."""

    def start(library: Path) -> Agent:
        (agent := new_agent(library)).pair()
        agent.settings = tmp_path / "agent.toml"
        agent.settings.write_text('stop_command = ["true"]\nstart_command = ["true"]\n')
        agent.start()
        return agent

    return start


def move(target: Path, agent: Agent, *options: str) -> Ended:
    """Run a pull with a cutover to its end."""
    with only_plex():
        return pull(target, agent, *options, **CUTOVER)


def ask(target: Path, agent: Agent, *options: str) -> Ended:
    """Run a pull that ends before Plex is stopped, so that other tests may run a Plex."""
    return pull(target, agent, *options, **CUTOVER)


def agent_preflight(library: Path) -> Ended:
    """Run ``plexodus-agent preflight``."""
    return run_main(agent_main, "preflight", "--library", library)


def refused(done: Ended, agent: Agent, target: Path) -> str:
    """Assert that a pull was refused before the cutover and any frame, and return the reason."""
    assert done.code == 12, done.text
    assert not [each for each in agent.requests() if "POST /v1/cutover" in each or "frames" in each]
    assert not (target / "Library").exists()
    return done.reason()


def arrived(target: Path, server: Path) -> None:
    """Assert that Plex's own folder is where Plex's image expects it, byte for byte."""
    assert rsync_differences(server, target / "Library" / SERVER) == []
    assert sums_hold(target)
    assert run_puller("verify", "--target", target).code == 0


def move_away(path: Path, where: Path, *, relative: bool = False) -> None:
    """Move ``path`` to ``where``, and replace it by a symlink."""
    path.rename(where)
    path.symlink_to(os.path.relpath(where, path.parent) if relative else where)


NEEDED = (
    SUPPORT,
    SERVER,
    f"{SERVER}/Plug-in Support",
    DATABASES,
    DATABASE,
    f"{SERVER}/Preferences.xml",
    f"{SERVER}/Metadata",
    f"{SERVER}/Media",
)


@pytest.mark.parametrize("name", NEEDED)
def test_symlink_to_what_plex_needs_is_refused(
    serve: Callable[[Path], Agent], library: Path, target: Path, name: str
) -> None:
    """Preflight and pull refuse a symlink, and name the link, its target and the remedy."""
    where = library.parent / "elsewhere"
    move_away(library / name, where, relative=NEEDED.index(name) % 2 == 1)
    agent = serve(library)
    reason = refused(ask(target, agent), agent, target)
    assert str(library / name) in reason
    assert "elsewhere" in reason
    assert "replace the symlink" in reason
    looked = agent_preflight(library)
    assert looked.code == 12
    assert "is a symlink to" in " ".join(looked.out.split())


@pytest.mark.parametrize("name", NEEDED)
@pytest.mark.parametrize("leads", ["itself", "nowhere", "chain", "inside"])
def test_symlink_that_dangles_or_loops_is_named(library: Path, name: str, leads: str) -> None:
    """A check fails and names the symlink, whether it dangles, loops, or leads to another name."""
    path = library / name
    where = path.with_name("other") if leads == "inside" else library.parent / "other"
    path.rename(where)
    if leads == "chain":
        (library.parent / "between").symlink_to(where)
        where = library.parent / "between"
    path.symlink_to({"itself": path.name, "nowhere": "/no/such/place"}.get(leads, where))
    checks = [check_links(str(library)), *(check(str(library / SERVER)) for check in ARTWORK)]
    assert [each for each in checks if f"{path} is a symlink to" in each.found]
    assert Outcome.FAILURE in {each.outcome for each in checks}


@pytest.mark.parametrize("name", [DATABASES, f"{SERVER}/Metadata"])
def test_symlink_that_appears_after_the_preflight_is_refused(
    serve: Callable[[Path], Agent], library: Path, target: Path, name: str
) -> None:
    """If the preflight found nothing, the symlink in the snapshot still stops the pull."""
    move_away(library / name, library.parent / "elsewhere")
    agent = serve(library)
    found_nothing = AsyncMock(return_value=CheckedSource(None, is_plex=False))
    with patch("initpuller.pull.passes.check_for_pull", found_nothing):
        assert name in refused(ask(target, agent), agent, target)


def test_excluded_database_is_refused(
    serve: Callable[[Path], Agent], library: Path, target: Path
) -> None:
    """A pattern that excludes Plex's database is refused, because Plex would start a new server."""
    agent = serve(library)
    reason = refused(ask(target, agent, "--exclude", "*.library.db"), agent, target)
    assert "com.plexapp.plugins.library.db" in reason


def test_symlinks_out_of_the_library_are_moved_with_a_warning(
    serve: Callable[[Path], Agent], library: Path, target: Path
) -> None:
    """Symlinks out of the library move unchanged, with a warning that counts only them."""
    (library / SERVER / "Cache" / "far").symlink_to("/mnt/nas")
    (library / SERVER / "Cache" / "up").symlink_to("../../../../other")
    agent = serve(library)
    done = move(target, agent)
    assert done.code == 0, done.text
    [told] = [line for line in done.log if line["event"].startswith("symlinks that lead out")]
    assert told["count"] == 2
    assert f"Library/{SERVER}/Cache/far -> /mnt/nas" in told["examples"]
    arrived(target, library / SERVER)


def test_symlink_below_metadata_fails_the_check(library: Path) -> None:
    """A folder of Metadata that is a symlink fails the check, as Metadata itself would."""
    move_away(library / SERVER / "Metadata" / "Movies", library.parent / "Movies")
    metadata, media = (check(str(library / SERVER)) for check in ARTWORK)
    assert metadata.outcome is Outcome.FAILURE
    assert "Metadata/Movies is a symlink" in metadata.found
    assert media.outcome is Outcome.PASS


def test_empty_metadata_beside_a_full_database_is_refused(
    serve: Callable[[Path], Agent], library: Path, target: Path
) -> None:
    """Empty Metadata and Media are refused with the number of items, unless they are excluded."""
    for name in ("Metadata", "Media"):
        shutil.rmtree(library / SERVER / name)
        (library / SERVER / name / "localhost").mkdir(parents=True)
    agent = serve(library)
    reason = refused(ask(target, agent), agent, target)
    assert "Metadata has no files, but the database has" in reason
    assert "--exclude Media" in reason
    assert refused(ask(target, agent, "--exclude", "Media"), agent, target).count("Metadata has")
    done = move(target, agent, "--exclude", "Media", "--exclude", "Metadata")
    assert done.code == 0, done.text
    assert not (target / "Library" / SERVER / "Metadata").exists()


def test_server_without_items_needs_no_artwork(library: Path) -> None:
    """Missing Metadata passes the checks if the database has no items."""
    shutil.rmtree(library / SERVER / "Metadata")
    assert ARTWORK[0](str(library / SERVER)).outcome is Outcome.FAILURE
    with closing(sqlite3.connect(library / DATABASE, isolation_level=None)) as database:
        triggers = "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        for (trigger,) in database.execute(triggers).fetchall():
            database.execute(f'DROP TRIGGER "{trigger}"')
        database.create_collation("icu_root", lambda one, other: (one > other) - (one < other))
        database.execute("DELETE FROM metadata_items")
    assert {check(str(library / SERVER)).outcome for check in ARTWORK} == {Outcome.PASS}


def test_library_that_is_a_symlink_keeps_its_name(
    serve: Callable[[Path], Agent], library: Path, target: Path
) -> None:
    """A library that is a symlink arrives under the symlink's name, and so does its delta."""
    move_away(library, library.with_name("plexlib"))
    agent = serve(library)
    assert pull(target, agent, "--until", "ready").code == 0
    (library / SERVER / "Cache" / "new").write_text("since then")
    done = move(target, agent)
    assert done.code == 0, done.text
    arrived(target, library.with_name("plexlib") / SERVER)
    assert sorted(path.name for path in target.iterdir()) == [".plexodus", "Library"]


@pytest.fixture
def own_folder(library: Path) -> Path:
    """Return Plex's own folder, moved to where Plex's image does not expect it."""
    where = library.parent / "data" / PLEX
    where.parent.mkdir()
    return (library / SERVER).rename(where)


def test_own_folder_is_placed(
    serve: Callable[[Path], Agent], own_folder: Path, target: Path
) -> None:
    """Plex's own folder arrives where Plex expects it, and later runs do nothing."""
    agent = serve(own_folder)
    assert pull(target, agent, "--until", "ready").code == 0
    (own_folder / "Cache" / "new").write_text("since then")
    done = move(target, agent)
    assert done.code == 0, done.text
    arrived(target, own_folder)
    receipt = json.loads((target / ".plexodus" / "receipt.json").read_text())
    assert receipt["library"]["name"] == "Library"
    assert receipt["plex"]["sections"]
    requests = agent.requests()
    assert ask(target, agent).code == 0
    assert ask(target / "Library" / SUPPORT, agent).code == 0
    assert agent.requests() == requests
    for folder in ("Library", f"Library/{SUPPORT}"):
        assert (target / folder).stat().st_mode == own_folder.stat().st_mode


def test_own_folder_is_rehearsed_and_then_placed(
    serve: Callable[[Path], Agent], own_folder: Path, target: Path
) -> None:
    """A pull after a rehearsal of Plex's own folder places it where Plex expects it."""
    agent = serve(own_folder)
    assert pull(target, agent, "--rehearse").code == 0
    assert (target / "Library" / DATABASE).is_file()
    done = move(target, agent)
    assert done.code == 0, done.text
    arrived(target, own_folder)


def test_missing_target_below_the_volume_is_created(
    serve: Callable[[Path], Agent], own_folder: Path, target: Path
) -> None:
    """On an empty volume, preflight and pull accept a target folder that does not exist."""
    agent = serve(own_folder)
    looked = run_puller(
        "preflight", "--target", target / "Library" / SUPPORT, pairing=agent.pairing
    )
    assert f"arrives as {target}/Library/{SERVER}" in " ".join(looked.out.split())
    done = move(target / "Library" / SUPPORT, agent)
    assert done.code == 0, done.text
    arrived(target, own_folder)


def test_existing_target_below_the_volume_receives_plexs_folder(
    serve: Callable[[Path], Agent], own_folder: Path, target: Path
) -> None:
    """Plex's folder arrives in an existing target, and a run for the volume does nothing."""
    agent, below = serve(own_folder), target / "Library" / SUPPORT
    below.mkdir(parents=True)
    done = move(below, agent)
    assert done.code == 0, done.text
    assert rsync_differences(own_folder, below / PLEX) == []
    before, requests = fingerprint(target), agent.requests()
    assert ask(target, agent).code == 0
    assert agent.requests() == requests
    assert fingerprint(target) == before
    assert run_puller("verify", "--target", target).code == 0


def test_library_is_refused_for_the_target_of_plexs_own_folder(
    serve: Callable[[Path], Agent], library: Path, target: Path
) -> None:
    """A ``Library`` below ``Library/Application Support`` is refused: Plex would not find it."""
    agent, below = serve(library), target / "Library" / SUPPORT
    below.mkdir(parents=True)
    done = ask(below, agent)
    assert done.code == 12, done.text
    assert "where no Plex looks for it" in done.reason()
    assert not [each for each in agent.requests() if "POST /v1/cutover" in each]


@pytest.mark.parametrize(
    ("served", "given"),
    [("", "Library"), (f"Library/{SUPPORT}", "Library"), ("plexlib", f"plexlib/{SERVER}")],
    ids=["too high", "too low", "renamed"],
)
def test_folder_near_plexs_is_refused(
    serve: Callable[[Path], Agent], library: Path, target: Path, served: str, given: str
) -> None:
    """A folder above or below Plex's is refused by a cutover, which names the correct one."""
    top = library.parent
    if not (top / served).exists():
        library.rename(top / "plexlib")
    agent = serve(top / served)
    assert f"Give --library '{top / given}'" in refused(ask(target, agent), agent, target)
    assert agent_preflight(top / served).code == 12
    assert pull(target, agent).code == 0
    assert rsync_differences(top / served, target / (top / served).name) == []


def test_plexs_folder_under_another_name_needs_a_symlink(library: Path) -> None:
    """Plex's folder with another name fails the check, and a symlink of the right name passes."""
    (library / SERVER).rename(library / "pms")
    check = check_library(str(library / "pms"))
    assert check.outcome is Outcome.FAILURE
    (library / PLEX).symlink_to("pms")
    assert check_library(str(library / PLEX)).outcome is Outcome.PASS


def test_folder_of_another_application_moves_only_without_cutover(
    serve: Callable[[Path], Agent], tmp_path: Path, target: Path
) -> None:
    """A folder of another application is refused with a cutover, and moves without one."""
    agent = serve(grow_tiny(tmp_path / "Photos"))
    assert "--no-cutover" in refused(ask(target, agent), agent, target)
    assert pull(target, agent).code == 0
    assert rsync_differences(tmp_path / "Photos", target / "Photos") == []


def test_folders_without_files_on_the_volume_are_set_aside(
    serve: Callable[[Path], Agent], library: Path, target: Path
) -> None:
    """Empty folders, as an init container or a mount makes them, are set aside by a move."""
    (target / "Library" / SERVER / "Logs").mkdir(parents=True)
    done = move(target, serve(library))
    assert done.code == 0, done.text
    arrived(target, library / SERVER)
    (aside,) = target.glob("Library.set-aside-*")
    assert (aside / SERVER / "Logs").is_dir()


def test_folders_with_a_file_or_symlink_are_no_skeleton(target: Path) -> None:
    """Only existing folders without any file or symlink count as a skeleton."""
    library = target / "Library"
    assert not is_skeleton(str(library))
    (library / SERVER / "Logs").mkdir(parents=True)
    assert is_skeleton(str(library))
    (target / "link").symlink_to(library)
    assert not is_skeleton(str(target / "link"))
    (library / SERVER / "link").symlink_to("Logs")
    assert not is_skeleton(str(library))
    (library / SERVER / "link").unlink()
    (library / SERVER / "Logs" / "a.log").touch()
    assert not is_skeleton(str(library))


@NEEDS_ROOT
def test_mount_point_is_no_skeleton(target: Path) -> None:
    """A mount point is no skeleton, because it cannot be renamed."""
    (what := target / "what").mkdir()
    (where := target / "the Library").mkdir()
    assert is_skeleton(str(where))
    with mounted(where, "--bind", what):
        assert not is_skeleton(str(where))


@NEEDS_ROOT
def test_bind_mount_below_the_library_is_moved(
    serve: Callable[[Path], Agent], library: Path, target: Path
) -> None:
    """The content of a bind mount, which replaces a symlink, arrives with the library."""
    metadata, where = library / SERVER / "Metadata", library.parent / "elsewhere"
    metadata.rename(where)
    metadata.mkdir()
    with mounted(metadata, "--bind", where):
        assert move(target, serve(library)).code == 0
    assert rsync_differences(where, target / "Library" / SERVER / "Metadata") == []
