"""``plexodus-agent plan`` for a library on this machine."""

from __future__ import annotations

import hashlib
import json
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
    names = {"README.md", "after.yaml", "plan.lock", "plex.yaml", "plexodus.yaml"}
    assert {path.name for path in folder.iterdir()} == names
    (folder / "plex.yaml").write_text("edited")
    done = program(
        "plexodus-agent", "plan", "--library", plex_library, "--directory", folder, check=False
    )
    assert done.returncode == 2
    assert str(folder / "plex.yaml") in done.stderr
    assert (folder / "plex.yaml").read_text() == "edited"


def test_folders_of_a_plan(plex_library: Path, tmp_path: Path) -> None:
    """A file in a folder of the plan is treated as those beside it, and nothing else is touched."""
    folder = tmp_path / "plan"
    after = folder / "after" / "plex.yaml"
    plan(plex_library, folder, "--output", "flux")
    written = after.read_text()
    after.write_text("edited")
    argocd = ("--output", "argocd", "--plex-charts", "https://charts.example.org")
    wanted = ("plexodus-agent", "plan", "--library", plex_library, "--directory", folder, *argocd)
    done = program(*wanted, check=False)
    assert done.returncode == 2
    assert str(after) in done.stderr
    assert after.read_text() == "edited"
    assert (folder / "source.yaml").exists()

    after.write_text(written)
    plan(plex_library, folder, *argocd)
    assert "argoproj.io" in after.read_text()
    assert not (folder / "source.yaml").exists()
    (folder / "after" / "notes").write_text("mine")
    plan(plex_library, folder)
    assert [path.name for path in after.parent.iterdir()] == ["notes"]
    (folder / "after" / "notes").unlink()
    plan(plex_library, folder, "--output", "flux")
    plan(plex_library, folder)
    assert not after.parent.exists()

    (tmp_path / "elsewhere").mkdir()
    after.parent.symlink_to(tmp_path / "elsewhere")
    done = program(*wanted, check=False)
    assert done.returncode == 2
    assert str(after.parent) in done.stderr
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_record_that_names_other_files(plex_library: Path, tmp_path: Path) -> None:
    """A record from elsewhere cannot have a file outside of the folder removed."""
    folder, other = tmp_path / "plan", tmp_path / "other.yaml"
    plan(plex_library, folder)
    other.write_text("")
    record = json.loads((folder / "plan.lock").read_text())
    record["files"]["../other.yaml"] = hashlib.sha256(b"").hexdigest()
    (folder / "plan.lock").write_text(json.dumps(record))
    done = program(
        "plexodus-agent", "plan", "--library", plex_library, "--directory", folder, check=False
    )
    assert done.returncode == 2
    assert other.exists()


def test_plan_checks_the_databases_as_far_as_asked(plex_library: Path, tmp_path: Path) -> None:
    """A damaged database is refused, and with ``--database-check skip`` nobody reads it."""
    database = plex_library / SERVER / "Plug-in Support/Databases/com.plexapp.plugins.library.db"
    with database.open("r+b") as file:
        file.seek(8192)
        file.write(b"\xff" * 8192)
    folder = tmp_path / "plan"
    done = program(
        "plexodus-agent", "plan", "--library", plex_library, "--directory", folder, check=False
    )
    assert done.returncode == 12
    plan(plex_library, folder, "--database-check", "skip")
    assert (folder / "README.md").exists()


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
        (tmp_path / "plan.lock").write_text(content)
    done = program(
        "plexodus-agent", "plan", "--library", plex_library, "--directory", tmp_path, "--check",
        check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert str(tmp_path) in done.stderr
