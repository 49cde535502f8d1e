"""``check`` and ``paths --apply``: requests to the running Plex after the move."""

from __future__ import annotations

import json
import shutil
from base64 import b64encode
from typing import TYPE_CHECKING

import pytest
from rig.plex.server import FakePlex, plex_of
from rig.volume import Ended, fingerprint, run_puller

from initpuller.plex import apply
from initpuller.plex.api import PlexApi

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


TOKEN = "FAKE-not-a-token-000"  # noqa: S105 - of the generator of libraries
SERVER = "Application Support/Plex Media Server"


@pytest.fixture
def volume(moved: Path, target: Path) -> Path:
    """Return a volume with a library of films, shows and music below /srv/media."""
    return shutil.copytree(moved, target, symlinks=True, dirs_exist_ok=True)


@pytest.fixture
def plex(volume: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakePlex]:
    """Start the Plex that runs on it, quicker than a real one."""
    monkeypatch.setattr(apply, "_PAUSE", 0.01)
    receipt = json.loads((volume / ".plexodus" / "receipt.json").read_text())
    with plex_of(receipt, token=TOKEN) as plex:
        yield plex


@pytest.fixture
def media(volume: Path, tmp_path: Path) -> Path:
    """Make every media file below another folder than on the VM."""
    listing = run_puller("paths", "--target", volume, "--json").out
    for section in json.loads(listing):
        for path in section["missing"]:
            made = tmp_path / "media" / path.removeprefix("/srv/media/")
            made.parent.mkdir(parents=True, exist_ok=True)
            made.touch()
    return tmp_path / "media"


def look(volume: Path, plex: FakePlex) -> Ended:
    """Run ``check``."""
    return run_puller("check", "--target", volume, "--plex-url", plex.url, "--json")


def move(volume: Path, plex: FakePlex, media: Path) -> Ended:
    """Run ``paths --apply``."""
    return run_puller(
        "paths", "--target", volume, "--map", f"/srv/media={media}", "--apply",
        "--plex-url", plex.url,
    )  # fmt: skip


def test_receipt_tells_what_the_server_was(volume: Path) -> None:
    """The receipt has version, identity and the items of each section."""
    moved = json.loads((volume / ".plexodus" / "receipt.json").read_text())["plex"]
    assert moved["version"] == "1.40.1.8227-c0dd5a73e"
    assert moved["machine_identifier"] == "fa4e" * 10
    assert {each["name"] for each in moved["sections"]} == {"Movies", "TV Shows", "Music"}
    assert all(each["items"] > 0 for each in moved["sections"])


def test_all_has_arrived(volume: Path, plex: FakePlex) -> None:
    """``check`` exits 0, and changes neither Plex nor the volume."""
    before = fingerprint(volume)
    done = look(volume, plex)
    assert done.code == 0, done.text
    assert {each["outcome"] for each in json.loads(done.out)} == {"pass"}
    assert plex.changes() == []
    assert fingerprint(volume) == before


def test_more_items_than_before(volume: Path, plex: FakePlex) -> None:
    """Items that a scan added are no loss."""
    plex.sections[0].items += 5
    assert look(volume, plex).code == 0


def test_another_server_answers(volume: Path, plex: FakePlex) -> None:
    """Another server's identity exits 13."""
    plex.machine_identifier = "another"
    done = look(volume, plex)
    assert done.code == 13
    assert "fa4e" * 10 in done.reason()


def test_older_plex_answers(volume: Path, plex: FakePlex) -> None:
    """An older Plex exits 13, and a newer one passes."""
    plex.version = "1.39.0.1-a"
    assert look(volume, plex).code == 13
    plex.version = "1.42.0.1-a"
    assert look(volume, plex).code == 0


def test_library_is_lost(volume: Path, plex: FakePlex) -> None:
    """A missing section exits 13 with its name."""
    lost = plex.sections.pop()
    done = look(volume, plex)
    assert done.code == 13
    assert lost.name in done.reason()


def test_items_are_lost(volume: Path, plex: FakePlex) -> None:
    """Fewer items are a warning with both numbers."""
    plex.sections[0].items -= 1
    done = look(volume, plex)
    assert done.code == 0
    checks = {each["name"]: each for each in json.loads(done.out)}
    assert checks["libraries"]["outcome"] == "warning"
    assert str(plex.sections[0].items) in checks["libraries"]["found"]


def test_plex_does_not_answer(volume: Path, plex: FakePlex) -> None:
    """An unreachable Plex exits 11, a refused token 10, and a failing Plex 13."""
    plex.fails["GET /"] = 500
    assert look(volume, plex).code == 13
    plex.fails.clear()
    plex.token = "another"  # noqa: S105
    assert look(volume, plex).code == 10
    done = run_puller("check", "--target", volume, "--plex-url", "http://127.0.0.1:1")
    assert done.code == 11


@pytest.mark.parametrize("url", ["127.0.0.1:32400", "ftp://x", "http://", "http://x:99999"])
def test_invalid_address_is_refused(volume: Path, url: str) -> None:
    """An invalid address exits 2."""
    assert run_puller("check", "--target", volume, "--plex-url", url).code == 2


def test_volume_that_nothing_was_moved_to(target: Path) -> None:
    """A volume without a receipt exits 14, because there is nothing to compare with."""
    assert run_puller("check", "--target", target).code == 14


def test_libraries_move(volume: Path, plex: FakePlex, media: Path) -> None:
    """Each section gets its new folder, a scan, and then loses the old folder.

    Trash is not emptied meanwhile, and is again afterwards; the database is never written.
    """
    before = fingerprint(volume / "Library")
    done = move(volume, plex, media)
    assert done.code == 0, done.text
    assert [each.folders for each in plex.sections] == [
        [str(media / each.name)] for each in plex.sections
    ]
    assert plex.trash_during == [False] * 9
    assert plex.is_emptying()
    changes = plex.changes()
    assert changes[0].endswith("/:/prefs?autoEmptyTrash=0")
    assert changes[-1].endswith("/:/prefs?autoEmptyTrash=1")
    for number, section in enumerate(sorted(plex.sections, key=lambda each: each.name)):
        both, scan, new = changes[1 + 3 * number : 4 + 3 * number]
        assert f"sections/{section.number}?" in both
        assert both.count("location=") == 2
        assert f"sections/{section.number}/refresh" in scan
        assert new.count("location=") == 1
    assert fingerprint(volume / "Library") == before


def test_second_run_changes_nothing(volume: Path, plex: FakePlex, media: Path) -> None:
    """A second run changes nothing."""
    assert move(volume, plex, media).code == 0
    plex.requests.clear()
    assert move(volume, plex, media).code == 0
    assert not [each for each in plex.changes() if "autoEmptyTrash" not in each]
    assert plex.is_emptying()


def test_trash_that_was_never_emptied(volume: Path, plex: FakePlex, media: Path) -> None:
    """If trash was not emptied automatically before, it is not afterwards."""
    plex.empties_trash = False
    assert move(volume, plex, media).code == 0
    assert not plex.is_emptying()
    assert not [each for each in plex.changes() if "prefs" in each]


def test_plex_does_not_see_the_media(volume: Path, plex: FakePlex, media: Path) -> None:
    """If Plex lacks the mount, the command fails before any change."""
    plex.fails[f"GET /services/browse/{b64encode(str(media).encode()).decode()}"] = 404
    done = move(volume, plex, media)
    assert done.code == 13
    assert "does not see" in done.reason()
    assert plex.changes() == []


def test_media_is_missing(volume: Path, plex: FakePlex, media: Path) -> None:
    """Missing media exits 12 without a request to Plex."""
    next(path for path in media.rglob("*") if path.is_file()).unlink()
    assert move(volume, plex, media).code == 12
    assert plex.requests == []


def test_plex_says_yes_and_does_nothing(volume: Path, plex: FakePlex, media: Path) -> None:
    """An ignored change is found by reading back, and the next run restores trash."""
    plex.keeps_folders = True
    assert move(volume, plex, media).code == 13
    assert not plex.is_emptying()
    assert (volume / ".plexodus" / "trash-was-on").exists()
    plex.keeps_folders = False
    assert move(volume, plex, media).code == 0
    assert plex.is_emptying()
    assert not (volume / ".plexodus" / "trash-was-on").exists()


def test_scan_loses_items(volume: Path, plex: FakePlex, media: Path) -> None:
    """If a scan loses items, the old folder stays and trash is not emptied."""
    plex.loses = 1
    done = move(volume, plex, media)
    assert done.code == 13
    assert "/srv/media/Movies" in plex.sections[0].folders + plex.sections[1].folders
    assert not plex.is_emptying()


@pytest.mark.parametrize("way", ["items return", "note removed"])
def test_lost_items_stay_refused(volume: Path, plex: FakePlex, media: Path, way: str) -> None:
    """Another run does not accept lost items. A person does, and trash is not emptied then."""
    plex.loses = 1
    assert move(volume, plex, media).code == 13
    plex.loses = 0
    for _ in range(2):
        done = move(volume, plex, media)
        assert done.code == 13
        assert "trash-was-on" in done.text
        assert any("/srv/media/Movies" in each.folders for each in plex.sections)
        assert not plex.is_emptying()
    if way == "items return":
        next(each for each in plex.sections if len(each.folders) > 1).items += 1
    else:
        (volume / ".plexodus" / "trash-was-on").unlink()

    assert move(volume, plex, media).code == 0

    assert all(each.folders == [str(media / each.name)] for each in plex.sections)
    assert plex.is_emptying() is (way == "items return")


def test_person_removes_the_old_folder(volume: Path, plex: FakePlex, media: Path) -> None:
    """Lost items are found at the end, too, if Plex has exactly the new folders already."""
    plex.loses = 1
    assert move(volume, plex, media).code == 13
    plex.loses = 0
    for each in plex.sections:
        each.folders = [str(media / each.name)]
    assert move(volume, plex, media).code == 13
    assert not plex.is_emptying()


@pytest.mark.parametrize("content", ["autoEmptyTrash was on\n", "", "{}", '{"items": 3}'])
def test_note_without_numbers(volume: Path, plex: FakePlex, media: Path, content: str) -> None:
    """A note of an older release changes nothing in Plex, and the error names it."""
    note = volume / ".plexodus" / "trash-was-on"
    note.write_text(content)
    done = move(volume, plex, media)
    assert done.code == 13
    assert str(note) in done.reason()
    assert plex.changes() == []


def test_killed_between_two_libraries(
    volume: Path, plex: FakePlex, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a kill the next run completes the rest and restores the trash setting."""
    scan, scanned = PlexApi.scan, list[int]()

    def killed(api: PlexApi, number: int) -> None:
        if scanned:
            raise KeyboardInterrupt
        scanned.append(number)
        scan(api, number)

    with monkeypatch.context() as patched:
        patched.setattr(PlexApi, "scan", killed)
        assert move(volume, plex, media).code == 130
    assert not plex.is_emptying()
    assert move(volume, plex, media).code == 0
    assert plex.is_emptying()
    assert all(each.folders == [str(media / each.name)] for each in plex.sections)
