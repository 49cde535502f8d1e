"""``plexodus-agent plan`` for a library on this machine."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import yaml
from rig.plex.commands import SERVER
from rig.programs import program

if TYPE_CHECKING:
    from pathlib import Path

MEDIA = ("--media", "/srv/media=media:/srv/media")


def plan(library: Path, folder: Path, *more: str) -> str:
    """Return the output of a plan into ``folder`` that must succeed."""
    return program(
        "plexodus-agent", "plan", "--library", library, "--directory", folder, *MEDIA, *more
    ).stdout


def test_plan_is_for_this_library(plex_library: Path, tmp_path: Path) -> None:
    """Version, owner and media are those of the library, and nothing in the folder is secret."""
    for path in (plex_library, *plex_library.rglob("*")):
        os.chown(path, 997, 996, follow_symlinks=False)
    folder = tmp_path / "plan"
    assert str(folder / "README.md") in plan(plex_library, folder)
    values = yaml.safe_load((folder / "plex.yaml").read_text())
    assert values["image"]["tag"].startswith("1.40.1.")
    assert values["extraEnv"]["PLEX_UID"] == "997"
    assert values["extraEnv"]["PLEX_GID"] == "996"
    assert [each["mountPath"] for each in values["extraVolumeMounts"]] == ["/srv/media"]
    assert "@TODO" not in (folder / "README.md").read_text()
    preferences = (plex_library / SERVER / "Preferences.xml").read_text()
    token = preferences.partition('PlexOnlineToken="')[2].partition('"')[0]
    assert token
    assert not any(token in path.read_text() for path in folder.iterdir())


def test_check_says_what_has_changed(plex_library: Path, tmp_path: Path) -> None:
    """The check takes the options of the folder, writes nothing, and exits 12 after a change."""
    folder = tmp_path / "plan"
    plan(plex_library, folder, "--output", "kustomize", "--namespace", "home")
    (folder / "plex.yaml").write_text("edited")
    check = ("plexodus-agent", "plan", "--library", plex_library, "--directory", folder, "--check")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with (plex_library / SERVER / "Metadata" / "large").open("wb") as file:
        file.truncate(7 << 30)
    assert program(*check).stdout == ""
    with (plex_library / SERVER / "Metadata" / "large").open("wb") as file:
        file.truncate(20 << 30)
    changed = program(*check, check=False)
    assert changed.returncode == 12
    assert changed.stdout == "claim: 10 GiB -> 45 GiB\n"
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_second_plan_replaces_the_first(plex_library: Path, tmp_path: Path) -> None:
    """Files of another form are gone, and one that somebody has edited is not overwritten."""
    folder = tmp_path / "plan"
    plan(plex_library, folder, "--output", "kustomize")
    plan(plex_library, folder, "--output", "helm")
    names = {"README.md", "after.yaml", "plan.json", "plex.yaml", "plexodus.yaml"}
    assert {path.name for path in folder.iterdir()} == names
    (folder / "plex.yaml").write_text("edited")
    done = program(
        "plexodus-agent", "plan", "--library", plex_library, "--directory", folder, check=False
    )
    assert done.returncode == 2
    assert str(folder / "plex.yaml") in done.stderr
    assert (folder / "plex.yaml").read_text() == "edited"


def test_no_plan_for_what_preflight_refuses(plex_library: Path, tmp_path: Path) -> None:
    """A library that a pull would refuse has no plan."""
    (plex_library / SERVER / "Preferences.xml").write_bytes(b"")
    done = program(
        "plexodus-agent", "plan", "--library", plex_library, "--directory", tmp_path / "plan",
        check=False,
    )  # fmt: skip
    assert done.returncode == 12
    assert "Preferences.xml" in done.stderr
    assert not (tmp_path / "plan").exists()


@pytest.mark.parametrize("content", [None, "{}", '{"output": "helm", "more": 1}'])
def test_check_of_a_folder_without_a_plan(
    plex_library: Path, tmp_path: Path, content: str | None
) -> None:
    """A folder that is not a plan's is named."""
    if content is not None:
        (tmp_path / "plan.json").write_text(content)
    done = program(
        "plexodus-agent", "plan", "--library", plex_library, "--directory", tmp_path, "--check",
        check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert str(tmp_path) in done.stderr
