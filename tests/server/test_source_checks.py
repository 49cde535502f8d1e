"""The agent's preflight: each check passes on a sound library and fails on its damage."""

from __future__ import annotations

import http.server
import json
import os
import re
import shutil
import sqlite3
import stat
import subprocess
import threading
from contextlib import closing
from pathlib import PurePath
from typing import TYPE_CHECKING
from unittest.mock import Mock

import pytest
from rig.plex.reader import opened
from rig.programs import program
from rig.volume import fingerprint

from agent.checks import plex_service
from agent.plex import server as plex_server
from agent.settings import Settings
from agent.source import tree_facts
from agent.source.library import open_library
from agent.source_checks import SOURCE_CHECKS, check_for_preflight, check_for_pull
from bench.plexlibrary import LibraryShape, make_library
from shared.checks import Check, Outcome, page, size, some

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PASS, WARNING, FAILURE = Outcome.PASS, Outcome.WARNING, Outcome.FAILURE
SERVER = "Application Support/Plex Media Server"
DATABASE = "Plug-in Support/Databases/com.plexapp.plugins.library.db"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return Plex's own folder in a small sound library, without any Plex running."""
    monkeypatch.setattr(plex_server, "_IDENTITY", ("127.0.0.1", 9))
    monkeypatch.setattr(plex_server, "_PACKAGE", "no-such-package")
    library = tmp_path / "Library"
    make_library(library, LibraryShape(300, 12_000_000, 2_000_000))
    return library / SERVER


def looked(server: Path) -> dict[str, Check]:
    """Return the checks by name, and require that the library is unchanged."""
    library = server.parent.parent
    before = fingerprint(library)
    source = open_library(str(library))
    checks = check_for_preflight(source, Settings()).checks
    assert fingerprint(library) == before
    return {check.name: check for check in checks}


def set_preference(server: Path, name: str, value: str) -> None:
    """Give an attribute of Preferences.xml another value."""
    path = server / "Preferences.xml"
    text = path.read_text()
    assert f' {name}="' in text
    path.write_text(re.sub(rf' {name}="[^"]*"', f' {name}="{value}"' if value else "", text))


def test_sound_library_fails_nowhere(server: Path) -> None:
    """A sound library passes every check, once leftovers of the old machine are removed."""
    assert FAILURE not in {check.outcome for check in looked(server).values()}
    set_preference(server, "autoEmptyTrash", "0")
    set_preference(server, "TranscoderTempDirectory", "")
    set_preference(server, "allowedNetworks", "")
    for folder in ("Cache", "Codecs", "Crash Reports", "Diagnostics", "Logs", "Updates"):
        subprocess.run(["rm", "-rf", server / folder], check=True)
    for dated in (server / DATABASE).parent.glob("*.db-2*"):
        dated.unlink()
    found = looked(server)
    # without its log nothing tells the version; and here is no unit that could be stopped
    odd = {name for name, check in found.items() if check.outcome is not PASS}
    assert odd == {"Plex version", "cutover"}
    assert len(found) == 16


def test_each_result_has_the_identifier_of_its_check(server: Path) -> None:
    """A preflight runs the whole registry; a pull runs all but the checks of the whole tree."""
    source = open_library(str(server.parent.parent))
    preflight = check_for_preflight(source, Settings())
    registered = list(dict.fromkeys(check.id for check in SOURCE_CHECKS))
    assert [check.id for check in preflight.checks] == registered
    pull = check_for_pull(source, Settings())
    assert [check.id for check in pull.checks] == registered[:-4]


def garbage(path: Path) -> None:
    """Overwrite a page in the middle of a file."""
    with path.open("r+b") as file:
        file.seek(4096 * 50)
        file.write(os.urandom(4096))


def rewrite(name: str, text: str) -> Callable[[Path], object]:
    """Return a damage that replaces a file of the server's folder."""
    return lambda server: (server / name).write_text(text)


def remove(name: str) -> Callable[[Path], object]:
    """Return a damage that removes a file of the server's folder."""
    return lambda server: (server / name).unlink()


def deep(server: Path) -> None:
    """Make more nested folders than can be moved."""
    (server / "/".join(["deep"] * 260)).mkdir(parents=True)


DAMAGES: dict[str, tuple[Callable[[Path], object], str, Outcome, str]] = {
    "no log": (
        lambda server: shutil.rmtree(server / "Logs"),
        *("Plex version", WARNING, "tells it"),
    ),
    "page of database": (
        lambda server: garbage(server / DATABASE),
        *("library database", FAILURE, "library.db"),
    ),
    "no database": (remove(DATABASE), "library database", FAILURE, "is not there"),
    "empty blobs": (
        rewrite(DATABASE.replace(".db", ".blobs.db"), ""),
        *("blobs database", FAILURE, "is empty"),
    ),
    "no blobs": (
        remove(DATABASE.replace(".db", ".blobs.db")),
        *("blobs database", WARNING, "is not there"),
    ),
    "no preferences": (remove("Preferences.xml"), "Preferences.xml", FAILURE, "No such file"),
    "empty preferences": (rewrite("Preferences.xml", ""), "Preferences.xml", FAILURE, "is empty"),
    "torn preferences": (
        rewrite("Preferences.xml", "<Preferences Mach"),
        *("Preferences.xml", FAILURE, "is not valid XML"),
    ),
    "no identity": (
        lambda server: set_preference(server, "MachineIdentifier", ""),
        *("Preferences.xml", FAILURE, "MachineIdentifier"),
    ),
    "old path": (
        lambda server: set_preference(server, "TranscoderTempDirectory", "/old/ssd"),
        *("old machine", WARNING, "TranscoderTempDirectory=/old/ssd"),
    ),
    "trash": (
        lambda server: set_preference(server, "autoEmptyTrash", "1"),
        *("automatic trash", WARNING, "history"),
    ),
    "trash by default": (
        lambda server: set_preference(server, "autoEmptyTrash", ""),
        *("automatic trash", WARNING, "history"),
    ),
    "absolute link": (
        lambda server: (server / "Metadata" / "far").symlink_to("/mnt/nas/art"),
        *("symlinks", WARNING, "Metadata/far -> /mnt/nas/art"),
    ),
    "folders too deep": (deep, "readable", FAILURE, "deep"),
    "socket": (
        lambda server: os.mknod(server / "Logs" / "s", stat.S_IFSOCK | 0o600),
        *("content", PASS, "Logs/s (socket)"),
    ),
    "large cache": (
        lambda server: (server / "Cache" / "large").write_bytes(bytes(20_000_000)),
        *("regenerable", WARNING, "MiB"),
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_reported_by_its_check(server: Path, damage: str) -> None:
    """A damage fails its check, with the finding and a remedy."""
    inflict, name, outcome, words = DAMAGES[damage]
    inflict(server)
    check = looked(server)[name]
    assert check.outcome is outcome
    assert words in check.found
    assert bool(check.advice) == (outcome is not PASS)


def test_dated_copies_are_counted(server: Path) -> None:
    """Dated copies and what Plex rebuilds are counted, with bytes."""
    for day in ("2024-03-11", "2024-03-08"):
        copy = (server / DATABASE).with_name(f"com.plexapp.plugins.library.db-{day}")
        copy.write_bytes(bytes(3 * 1024**2))
    check = looked(server)["regenerable"]
    assert f"{PurePath(DATABASE).name}-2024-03-11 3.0 MiB" in check.found
    assert f"{PurePath(DATABASE).name}-2024-03-08 3.0 MiB" in check.found
    assert re.search(r"Cache \d+\.\d MiB", check.found)
    assert "--exclude-regenerable" in check.advice


@pytest.fixture
def plex(server: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Start a server that answers ``/identity`` as Plex does."""

    class Identity(http.server.BaseHTTPRequestHandler):
        """One answer."""

        def do_GET(self) -> None:
            """The XML that was recorded of Plex 1.41."""
            body = (
                b'<?xml version="1.0" encoding="UTF-8"?>\n<MediaContainer size="0" claimed="1"'
                b' machineIdentifier="m" version="1.41.2.9200-c6bbc1b53"></MediaContainer>'
            )
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    del server  # and so there is no server
    listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Identity)
    threading.Thread(target=listening.serve_forever).start()
    monkeypatch.setattr(plex_server, "_IDENTITY", ("127.0.0.1", listening.server_address[1]))
    yield
    listening.shutdown()
    listening.server_close()


@pytest.mark.usefixtures("plex")
def test_version_of_a_running_server_is_reported(server: Path) -> None:
    """A running server's version overrides the one in its old log."""
    found = looked(server)
    assert found["Plex version"].found == "1.41.2.9200-c6bbc1b53"
    assert found["Plex"].found.startswith("it runs")
    assert found["cutover"].outcome is WARNING
    assert "--no-cutover" in found["cutover"].advice


def test_commands_are_never_said_to_work(server: Path, tmp_path: Path) -> None:
    """A stop_command may be refused by what it asks, such as an engine of another user's.

    Only a preflight warns: a pull is refused for a warning about the cutover.
    """
    settings = Settings(
        state=str(tmp_path / "state"), stop_command=["true"], start_command=["true"]
    )
    source = open_library(str(server.parent.parent))
    found = {check.name: check for check in check_for_preflight(source, settings).checks}
    assert found["cutover"].outcome is WARNING
    assert "runuser -u plexodus" in found["cutover"].advice
    [pulled] = [each for each in check_for_pull(source, settings).checks if each.name == "cutover"]
    assert pulled.outcome is PASS


@pytest.mark.parametrize("is_seen", [True, False])
def test_database_that_another_service_has_open_is_reported(
    server: Path, monkeypatch: pytest.MonkeyPatch, *, is_seen: bool
) -> None:
    """If Plex is not the unit or container of the settings, the preflight says so."""
    database = server / DATABASE
    with opened(database) as process:
        plex = Mock(shows=lambda pid: is_seen and pid == process.pid)
        monkeypatch.setattr(plex_service, "plex_service", lambda _: plex)
        found = looked(server)["cutover"]
    assert found.outcome is (PASS if is_seen else WARNING)
    assert (str(database) in found.found) is not is_seen


def test_folder_of_another_application_passes_without_plex_checks(tmp_path: Path) -> None:
    """A folder that is not Plex's is not checked as if it were."""
    (tmp_path / "Photos").mkdir()
    source = open_library(str(tmp_path / "Photos"))
    checks = check_for_preflight(source, Settings()).checks
    assert {check.name for check in checks} == {"library", "content", "readable", "symlinks"}
    assert {check.outcome for check in checks} == {PASS, WARNING}


def test_file_that_becomes_a_folder_leaks_no_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent that is asked for many preflights while files turn into folders keeps none open."""
    read, place = tree_facts._read, tmp_path / "Photos" / "one"

    def read_after_change(base: int, path: bytes, until: float) -> int:
        place.unlink()
        place.mkdir()
        return read(base, path, until)

    monkeypatch.setattr(tree_facts, "_read", read_after_change)
    place.parent.mkdir()
    place.write_bytes(b"1")
    source = open_library(str(place.parent))
    before = len(os.listdir("/proc/self/fd"))
    assert check_for_preflight(source, Settings()).content_bytes == 1
    assert place.is_dir()
    assert len(os.listdir("/proc/self/fd")) <= before


def test_command_says_refused_or_not(server: Path) -> None:
    """The command exits 0 or 12, with text or JSON, also if a database is in use."""
    library = server.parent.parent
    with closing(sqlite3.connect(server / DATABASE, isolation_level=None)) as connection:
        connection.execute("INSERT INTO accounts(id, name) VALUES (77, 'now')")
        fine = program("plexodus-agent", "preflight", "--library", library)
    assert "pass     library database" in fine.stdout
    assert fine.stdout.strip().endswith("0 failure")
    (server / "Preferences.xml").write_bytes(b"")
    refused = program("plexodus-agent", "preflight", "--library", library, "--json", check=False)
    assert refused.returncode == 12
    assert "Preferences.xml" in refused.stderr
    report = json.loads(refused.stdout)
    assert report["media"][0] == {"section": "Movies", "path": "/srv/media/Movies"}
    checks = report["checks"]
    assert {"name", "outcome", "found"} <= set(checks[0])
    assert [check["outcome"] for check in checks].count("failure") == 1


def test_report_page_has_columns_and_advice() -> None:
    """The page has columns, folded lines, advice below each finding, and counts."""
    long = "word " * 40
    shown = page([Check("one", PASS, "fine"), Check("second", FAILURE, long.strip(), "Do this.")])
    lines = shown.splitlines()
    assert lines[0] == "pass     one     fine"
    assert lines[1].startswith("failure  second  word word")
    assert all(len(line) <= 100 for line in lines)
    assert lines[-3].strip() == "-> Do this."
    assert lines[-1] == "1 pass, 0 warning, 1 failure"
    assert page([]) == ""


def test_figures_have_readable_units() -> None:
    """Sizes have a unit, and long lists are cut."""
    assert [size(0), size(1023), size(1536), size(5 * 1024**4)] == [
        *("0 bytes", "1023 bytes", "1.5 KiB", "5120.0 GiB")
    ]
    assert some(["a", "b"]) == "a, b"
    assert some(list("abcdefgh")) == "a, b, c, d, e and 3 more"


def test_what_never_moves_is_listed(server: Path) -> None:
    """Entries that never move are listed with their bytes, as in the receipt."""
    (server / "plexmediaserver.pid").write_text("4711\n")
    os.mkfifo(server / "pipe")
    found = looked(server)["content"].found
    assert "plexmediaserver.pid (5 bytes)" in found
    assert "pipe (FIFO)" in found
