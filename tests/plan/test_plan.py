"""The plan for one library: what is wrong in it would break a move, or hide a folder of media."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rig.plans import GOLDEN, LIBRARY, files, options

from agent.plan.claim import claim_gib
from agent.plan.library import PlannedLibrary
from agent.plan.media import media_mounts
from agent.plan.options import MediaVolume, Output, PlanOptions, parse_media
from initpuller.commands.options import Globs, check_mappings
from shared.errors import ConfigurationError
from shared.wire.protocol import MediaFolder

VALUES = Path(__file__).parent.parent.parent / "charts" / "values"
EXAMPLE = PlannedLibrary("1.40.1.8227-c0dd5a73e", 25_000_000_000, 30_000, (1000, 1000), {}, [])
"""The library that the values in ``charts/values`` are for."""
ALL = pytest.mark.parametrize("output", list(Output))


def parsed(text: str) -> Any:  # noqa: ANN401 - whatever YAML has
    """Return the objects of a file, parsed by another program than the one that wrote it."""
    found = list(yaml.safe_load_all(text))
    return found[0] if len(found) == 1 else found


def planned(*media: tuple[str, str, str], folders: dict[str, str] | None = None) -> dict[str, str]:
    """Return a plan for Helm with these volumes, and with these folders by library."""
    found = [MediaFolder(name, path) for name, path in (folders or {}).items()]
    library = PlannedLibrary("1.40", 1, 1, (1, 1), {}, found)
    volumes = [MediaVolume(*each) for each in media]
    return files(library, msgspec.structs.replace(options(Output.HELM), media=volumes))


@ALL
def test_the_same_library_has_the_same_plan(output: Output) -> None:
    """A plan changes only with the library, so its diff can be reviewed (rig.plans writes it)."""
    written = {path.name: path.read_text() for path in (GOLDEN / output).iterdir()}
    assert "@TODO" not in written.pop("plan.json")
    assert files(LIBRARY, options(output)) == written


def test_plan_says_what_the_documented_values_say() -> None:
    """For the library of the examples, values and manifests are those in charts/values."""
    plan = files(EXAMPLE, PlanOptions(Output.HELM))
    for ours, theirs in (("plex", "init-container"), ("after", "after")):
        assert parsed(plan[f"{ours}.yaml"]) == parsed((VALUES / f"{theirs}.yaml").read_text())
    values = parsed(plan["plexodus.yaml"])
    assert values.pop("image") == {"repository": "plexodus-puller"}
    assert values == parsed((VALUES / "plexodus.yaml").read_text())
    plan = files(EXAMPLE, PlanOptions(Output.KUSTOMIZE))
    for path in (VALUES / "kustomize").iterdir():
        assert parsed(plan[path.name]) == parsed(path.read_text())


@ALL
def test_gap_in_the_plan_is_refused(output: Output) -> None:
    """A folder of media without a volume cannot be applied by mistake: no parser takes the file."""
    plan = files(LIBRARY, options(output))
    with pytest.raises(yaml.YAMLError):
        parsed(plan["plex.yaml"])
    assert "--media /mnt/nas2/films=CLAIM:/mnt/nas2/films" in plan["README.md"]
    for name, text in plan.items():
        if name.endswith(".yaml") and "@TODO" not in text:
            assert parsed(text)


@given(st.text(), st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp"])))
def test_name_in_the_library_cannot_add_anything(section: str, name: str) -> None:
    """A library's name, a folder's and a claim's path never end a comment or a string."""
    path = f"/mnt/{name}"
    library = PlannedLibrary("1.40", 1, 1, (1, 1), {section: 1}, [MediaFolder(section, path)])
    try:
        volume = parse_media(f"{path}=nas:{path}")
        plan = files(library, PlanOptions(Output.HELM, media=[volume]))
    except ConfigurationError:
        return
    plex, ours = parsed(plan["plex.yaml"]), parsed(plan["plexodus.yaml"])
    assert [each["mountPath"] for each in plex["extraVolumeMounts"]] == [volume.new]
    assert len(plex["extraVolumes"]) == 3
    assert ours["migrations"][0]["settings"] == {"PLEXODUS_EXCLUDE_REGENERABLE": False}


def test_puller_takes_the_new_paths() -> None:
    """The mappings of a plan are what `pull` accepts, and where the sidecar finds the files."""
    nas, films = ("/mnt/nas", "nas", "/media"), ("/mnt/nas/films", "films", "/mnt/nas/films")
    plan = planned(nas, films, folders={"Films": "/mnt/nas/films", "Music": "/mnt/nas/music"})
    settings = parsed(plan["plexodus.yaml"])["migrations"][0]["settings"]
    mappings = tuple(Globs().split_envvar_value(settings["PLEXODUS_MAP"]))
    check_mappings(mappings, applies=settings["PLEXODUS_APPLY_PATHS"])
    assert set(mappings) == {"/mnt/nas=/media", "/mnt/nas/films=/mnt/nas/films"}
    assert settings["PLEXODUS_SET_PREFERENCE"] == "autoEmptyTrash=0"
    [pull, watch] = parsed(plan["plex.yaml"])["extraInitContainers"]
    seen = {each["mountPath"] for each in watch["volumeMounts"]}
    assert seen - {each["mountPath"] for each in pull["volumeMounts"]} == {
        "/media",
        "/mnt/nas/films",
    }


def test_path_with_an_equals_sign() -> None:
    """It can be mounted where it was, but not elsewhere: a list of OLD=NEW could not say so."""
    assert parse_media("/a=b=nas:/a=b") == MediaVolume("/a=b", "nas", "/a=b")
    assert planned(("/a=b", "nas", "/a=b"), folders={"Films": "/a=b"})
    with pytest.raises(ConfigurationError, match="cannot change"):
        planned(("/a=b", "nas", "/c"), folders={"Films": "/a=b"})


def test_folders_are_on_the_nearest_volume() -> None:
    """A volume has the folders below its path, not those whose names only begin like it."""
    folders = [
        MediaFolder("Films", "/mnt/nas/films"),
        MediaFolder("Kids", "/mnt/nas/films//kids/"),
        MediaFolder("Old", "/mnt/nas2"),
    ]
    volumes = [MediaVolume("/mnt/nas", "nas", "/media"), MediaVolume("/mnt/nas/films", "f", "/f")]
    found = {each.old: (each.claim, each.sections) for each in media_mounts(folders, volumes)}
    assert found == {
        "/mnt/nas": ("nas", ()),
        "/mnt/nas/films": ("f", ("Films", "Kids")),
        "/mnt/nas2": ("", ("Old",)),
    }


@pytest.mark.parametrize("path", ["/", "/config/media", "relative", "/mnt/\n"])
def test_folder_that_would_hide_the_library(path: str) -> None:
    """Media that Plex has where its image has volumes, or nowhere, need another path."""
    with pytest.raises(ConfigurationError, match="cannot be mounted"):
        planned(folders={"Films": path})


@pytest.mark.parametrize(
    "text",
    [
        "/mnt/nas", "/a=b=/c", "/mnt/nas=nas", "/mnt/nas=:/media", "nas=nas:/media", "/a=b:c",
        "/a=b:/\n", "/a=b:/", "/a=b:/config", "/a=b:/x/../config/y", "/c:/d=b:/c:/d",
    ],
)  # fmt: skip
def test_incomplete_media_option(text: str) -> None:
    """The error shows the form."""
    with pytest.raises(ConfigurationError, match="OLD=VOLUME:NEW"):
        parse_media(text)


@pytest.mark.parametrize(
    "given",
    [
        {"namespace": "Media"},
        {"namespace": "123"},
        {"release": "plex\n"},
        {"release": "p" * 35},
        {"storage_class": "a b"},
        {"image": "registry.example.org/plexodus-puller:1"},
        {"image": "registry.example.org/puller #"},
        {"media": [MediaVolume("/a", "A", "/a")]},
        {"media": [MediaVolume("/a", "a", "/a"), MediaVolume("/a", "b", "/b")]},
        {"media": [MediaVolume("/a", "a", "/a"), MediaVolume("/b", "b", "/a")]},
    ],
)
def test_name_that_kubernetes_refuses(given: dict[str, Any]) -> None:
    """It is refused before anything is written."""
    with pytest.raises(ConfigurationError):
        PlanOptions(Output.HELM, **given).checked()


def test_claim_has_room_for_twice_the_library() -> None:
    """The size is at least twice the content and its entries, and at least 10 GiB."""
    for content, entries in ((0, 0), (1, 1), (5 << 30, 0), (5 << 30, 1), (10**13, 10**8)):
        size = claim_gib(content, entries)
        assert size >= 10
        assert size << 30 >= 2 * (content + 4096 * entries)
        assert size % 5 == 0


def test_claim_of_an_earlier_plan_stays_while_the_library_fits() -> None:
    """A StatefulSet cannot change its claim, so a grown library does not ask for another one."""
    before = claim_gib(25 << 30, 0)
    assert claim_gib(38 << 30, 0, before) == before
    assert claim_gib(41 << 30, 0, before) > before
