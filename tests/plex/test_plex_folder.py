"""The place of Plex's library, read from real units, drop-ins and files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from agent.plex import folder
from agent.plex.engine import Mount
from agent.plex.folder import (
    elsewhere,
    find_library_of_unit,
    library_of,
    path_outside,
    read_assignments,
    support_folder,
)
from agent.settings import load_settings
from shared.errors import ConfigurationError, PreflightRefused

if TYPE_CHECKING:
    from pathlib import Path

VARIABLE = "PLEX_MEDIA_SERVER_APPLICATION_SUPPORT_DIR"
USUAL = "/var/lib/plexmediaserver/Library/Application Support"
SHOWN = f'Environment="{VARIABLE}={USUAL}" PLEX_MEDIA_SERVER_MAX_PLUGIN_PROCS=6'


def test_library_folder_is_read_from_the_unit() -> None:
    """The folder is read from the unit, with or without the quotes of ``systemctl show``."""
    assert support_folder(SHOWN, {}, "/home/plex") == USUAL
    assert support_folder(f"Environment={VARIABLE}=/data/plex/", {}, "/x") == "/data/plex"


def test_file_of_the_unit_goes_before_its_environment(tmp_path: Path) -> None:
    """An EnvironmentFile overrides Environment, and a missing one is ignored."""
    path = tmp_path / "plex env"
    path.write_text(f'# comment\n{VARIABLE}="/mnt/my plex"  # more\nexport OTHER=1\n')
    shown = f"{SHOWN}\nEnvironmentFiles={path} (ignore_errors=no)"
    shown += f"\nEnvironmentFiles={tmp_path}/none (ignore_errors=yes)"
    assert support_folder(shown, {}, "/x") == "/mnt/my plex"


def test_defaults_hold_where_the_unit_is_silent() -> None:
    """Without a setting, the default below the home of Plex's user is used."""
    assert support_folder("Environment=", {VARIABLE: "/d"}, "/x") == "/d"
    assert support_folder(SHOWN, {VARIABLE: "/d"}, "/x") == USUAL
    assert support_folder("", {}, "/home/plex") == "/home/plex/Library/Application Support"


def test_file_that_no_shell_would_read(tmp_path: Path) -> None:
    """An unreadable file is ignored."""
    (tmp_path / "a").write_text(f'{VARIABLE}="/never closed\n')
    (tmp_path / "b").write_bytes(b"\xff\n" + f"{VARIABLE}=/b\n".encode())
    assert read_assignments([str(tmp_path / "a"), str(tmp_path / "b")]) == {VARIABLE: "/b"}


def test_library_is_what_the_pod_needs() -> None:
    """The library is ``Library`` as a whole, or Plex's own folder without one."""
    assert library_of(USUAL) == "/var/lib/plexmediaserver/Library"
    assert library_of("/data/plex") == "/data/plex/Plex Media Server"


def test_library_is_found_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library is found by ``systemctl``, or the error lists where it was looked for."""
    support = tmp_path / "Library" / "Application Support"
    (tmp_path / "bin").mkdir()
    systemctl = tmp_path / "bin" / "systemctl"
    systemctl.write_text(
        '#!/bin/sh\n[ "$4" = plexmediaserver.service ] || exit 1\n'
        f"echo 'Environment=\"{VARIABLE}={support}\"'\n"
    )
    systemctl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setattr(folder, "_DEFAULTS", str(tmp_path / "none"))
    with pytest.raises(PreflightRefused, match="Plex Media Server"):
        find_library_of_unit("plexmediaserver.service")

    (support / "Plex Media Server").mkdir(parents=True)

    assert find_library_of_unit("plexmediaserver.service") == str(tmp_path / "Library")
    with pytest.raises(PreflightRefused):
        find_library_of_unit("another.service")


@pytest.mark.parametrize(
    ("support", "library"),
    [
        ("var/snap/plexmediaserver/common/Library/Application Support", "Library"),
        ("var/lib/plex", "Plex Media Server"),
        ("volume1/PlexMediaServer/AppData", "Plex Media Server"),
        ("volume2/Plex/Library/Application Support", "Library"),
        ("share/CACHEDEV1_DATA/.qpkg/PlexMediaServer/Library", "Plex Media Server"),
    ],
)
def test_library_of_another_package_is_found(tmp_path: Path, support: str, library: str) -> None:
    """Snap, Arch Linux, Synology and QNAP keep it elsewhere; an empty folder does not count."""
    assert elsewhere(str(tmp_path)) == []
    (tmp_path / support).mkdir(parents=True)
    assert elsewhere(str(tmp_path)) == []
    (tmp_path / support / "Plex Media Server").mkdir()
    [found] = elsewhere(str(tmp_path))
    assert found == str(tmp_path / support)
    assert os.path.basename(library_of(found)) == library


def test_library_in_a_container_is_at_its_nearest_mount() -> None:
    """The innermost mount counts, and a folder whose name only begins alike does not."""
    mounts = [
        Mount("/srv/plex", "/config"),
        Mount("/mnt/a", "/config/Library"),
        Mount("/x", "/con"),
    ]
    inside = "/config/Library/Application Support"
    assert path_outside(inside, mounts) == "/mnt/a/Application Support"
    assert path_outside(inside, mounts[:1]) == "/srv/plex/Library/Application Support"
    assert path_outside(inside, mounts[2:]) == inside
    assert path_outside("/config", [Mount("/srv/plex/", "/config")]) == "/srv/plex"


@pytest.mark.parametrize(
    "lines",
    [
        'container = "plex"\nstop_command = ["a"]\nstart_command = ["b"]',
        'stop_command = ["a"]',
    ],
)
def test_settings_that_name_two_ways_to_stop_plex(tmp_path: Path, lines: str) -> None:
    """Two ways, or half of one, are refused, so that nobody is surprised by the other."""
    path = tmp_path / "agent.toml"
    path.write_text(lines)
    with pytest.raises(ConfigurationError, match=r"set (either|both)"):
        load_settings(str(path), {})
