"""A plan for a Plex in a container: its environment names the owner of the files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml
from rig.plex.commands import SERVER
from rig.plex.engines import NAME
from rig.programs import program

if TYPE_CHECKING:
    from pathlib import Path
    from subprocess import CompletedProcess

    from rig.plex.engines import Engine

pytestmark = pytest.mark.platforms


@pytest.fixture
def settings(engine: Engine, tmp_path: Path) -> Path:
    """Return the agent's settings for the container."""
    path = tmp_path / "agent.toml"
    path.write_text(f'container = "{NAME}"\nengine_socket = "{engine.socket}"\n')
    return path


def plan(settings: Path, folder: Path, *more: str, check: bool = True) -> CompletedProcess[str]:
    """Write a plan."""
    arguments = ("--config", settings, "--directory", folder, "--media", "/srv=media:/srv")
    return program("plexodus-agent", "plan", *arguments, *more, check=check)


@pytest.mark.parametrize("names", [("PUID", "PGID"), ("PLEX_UID", "PLEX_GID")])
def test_owner_of_the_container(
    engine: Engine, library: Path, settings: Path, tmp_path: Path, names: tuple[str, str]
) -> None:
    """The library is found by the container, and its pod has the owner of that container."""
    user, group = names
    engine.create(library.parent, "--env", f"{user}=1234", "--env", f"{group}=567")
    plan(settings, tmp_path / "plan")
    values = yaml.safe_load((tmp_path / "plan" / "plex.yaml").read_text())
    assert values["extraEnv"]["PLEX_UID"] == "1234"
    assert values["extraEnv"]["PLEX_GID"] == "567"
    readme = (tmp_path / "plan" / "README.md").read_text()
    assert f"| 1234:567 | `{user}` and `{group}` of Plex's container |" in readme


def test_owner_without_variables(
    engine: Engine, library: Path, settings: Path, tmp_path: Path
) -> None:
    """The owner is that of the files if the container says nothing of it."""
    engine.create(library.parent)
    about = (library / SERVER).stat()
    assert about.st_uid == 0
    plan(settings, tmp_path / "plan")
    readme = (tmp_path / "plan" / "README.md").read_text()
    assert "| 1000:1000 | Plex's image, because root owns the library's files |" in readme


def test_container_that_the_engine_does_not_have(
    engine: Engine, library: Path, settings: Path, tmp_path: Path
) -> None:
    """The owner is not known, so there is no plan, even if the library is named."""
    done = plan(settings, tmp_path / "plan", "--library", str(library), check=False)
    assert done.returncode == 17
    assert NAME in done.stderr
    assert not (tmp_path / "plan").exists()
