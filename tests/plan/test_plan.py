"""The plan for one library: what is wrong in it would break a move, or hide a folder of media."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rig.plans import GOLDEN, LIBRARY, options

from agent.plan.claim import claim_for
from agent.plan.folder import render
from agent.plan.library import PlannedLibrary
from agent.plan.media import media_mounts
from agent.plan.options import MediaVolume, Output, PlanOptions, parse_media
from shared.errors import ConfigurationError
from shared.wire.protocol import MediaFolder

if TYPE_CHECKING:
    from collections.abc import Iterable

VALUES = Path(__file__).parent.parent.parent / "charts" / "values"
EXAMPLE = PlannedLibrary("1.40.1.8227-c0dd5a73e", 25_000_000_000, (1000, 1000), {}, [])
"""The library that the values in ``charts/values`` are for."""
ALL = pytest.mark.parametrize("output", list(Output))


def parsed(text: str) -> Any:  # noqa: ANN401 - whatever YAML has
    """Return the objects of a file, parsed by another program than the one that wrote it."""
    found = list(yaml.safe_load_all(text))
    return found[0] if len(found) == 1 else found


def with_claims(output: Output) -> PlanOptions:
    """Return the options of the golden plan, and a volume for each folder of media."""
    given = options(output)
    volumes = [*given.media, MediaVolume("/mnt/nas2", "nas2", "/mnt/nas2")]
    return msgspec.structs.replace(given, media=volumes)


@ALL
def test_the_same_library_has_the_same_plan(output: Output) -> None:
    """A plan changes only with the library, so its diff can be reviewed (rig.plans writes it)."""
    files = render(LIBRARY, options(output))
    assert files == {path.name: path.read_text() for path in (GOLDEN / output).iterdir()}


def test_plan_says_what_the_documented_values_say() -> None:
    """For the library of the examples, values and manifests are those in charts/values."""
    files = render(EXAMPLE, PlanOptions(Output.HELM))
    assert parsed(files["plex.yaml"]) == parsed((VALUES / "init-container.yaml").read_text())
    ours = parsed(files["plexodus.yaml"])
    assert ours.pop("image") == {"repository": "plexodus-puller"}
    assert ours == parsed((VALUES / "plexodus.yaml").read_text())
    files = render(EXAMPLE, PlanOptions(Output.KUSTOMIZE))
    for path in (VALUES / "kustomize").iterdir():
        assert parsed(files[path.name]) == parsed(path.read_text())


def test_gitops_plan_has_the_values_of_the_plan_for_helm() -> None:
    """Flux and Argo CD give both charts what helm gives them."""
    helm = render(LIBRARY, with_claims(Output.HELM))
    flux = render(LIBRARY, with_claims(Output.FLUX))
    argocd = render(LIBRARY, with_claims(Output.ARGOCD))
    for name in ("plex.yaml", "plexodus.yaml"):
        values = parsed(helm[name])
        assert parsed(flux[name])["spec"]["values"] == values
        text = "".join(
            line for line in argocd[name].splitlines(keepends=True) if "@TODO" not in line
        )
        assert parsed(text)["spec"]["source"]["helm"]["valuesObject"] == values


def _files(output: Output) -> Iterable[tuple[str, str]]:
    return render(LIBRARY, options(output)).items()


@ALL
def test_gap_in_the_plan_is_refused(output: Output) -> None:
    """A folder of media without a volume cannot be applied by mistake: no parser takes the file."""
    gaps = {name for name, text in _files(output) if "@TODO" in text and name != "README.md"}
    assert "plex.yaml" in gaps
    for name, text in _files(output):
        if name in gaps:
            with pytest.raises(yaml.YAMLError):
                parsed(text)
        elif name.endswith(".yaml"):
            assert parsed(text)
    assert "/mnt/nas2/films" in dict(_files(output))["README.md"]


@given(st.text(), st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"])))
def test_name_in_the_library_cannot_add_anything(section: str, name: str) -> None:
    """A library's name, a folder's and a claim's path never end a comment or a string."""
    path = f"/mnt/{name}"
    odd = msgspec.structs.replace(options(Output.HELM), media=[MediaVolume(path, "nas", path)])
    library = PlannedLibrary("1.40", 1, (1, 1), {section: 1}, [MediaFolder(section, path)])
    try:
        files = render(library, odd)
    except ConfigurationError:
        return
    plex, ours = parsed(files["plex.yaml"]), parsed(files["plexodus.yaml"])
    assert [each["mountPath"] for each in plex["extraVolumeMounts"]] == [path]
    assert len(plex["extraVolumes"]) == 3
    assert ours["migrations"][0]["settings"] == {"PLEXODUS_EXCLUDE_REGENERABLE": False}


def test_folders_are_on_the_nearest_volume() -> None:
    """A volume has the folders below its path, not those whose names only begin like it."""
    folders = [
        MediaFolder("Films", "/mnt/nas/films"),
        MediaFolder("Kids", "/mnt/nas/films/kids"),
        MediaFolder("Old", "/mnt/nas2"),
    ]
    volumes = [MediaVolume("/mnt/nas", "nas", "/media"), MediaVolume("/mnt/nas/films", "f", "/f")]
    found = {each.old: (each.claim, each.sections) for each in media_mounts(folders, volumes)}
    assert found == {
        "/mnt/nas": ("nas", ()),
        "/mnt/nas/films": ("f", ("Films", "Kids")),
        "/mnt/nas2": ("", ("Old",)),
    }


@pytest.mark.parametrize(
    "text", ["/mnt/nas", "/mnt/nas=nas", "/mnt/nas=:/media", "nas=nas:/media", "/a=b:c", "/a=b:/\n"]
)
def test_incomplete_media_option(text: str) -> None:
    """The error shows the form."""
    with pytest.raises(ConfigurationError, match="OLD=VOLUME:NEW"):
        parse_media(text)


@pytest.mark.parametrize(
    "given",
    [
        {"namespace": "Media"},
        {"release": "plex\n"},
        {"release": "p" * 37},
        {"storage_class": "a b"},
        {"image": "registry.example.org/plexodus-puller:1"},
        {"media": [MediaVolume("/a", "A", "/a")]},
    ],
)
def test_name_that_kubernetes_refuses(given: dict[str, Any]) -> None:
    """It is refused before anything is written."""
    with pytest.raises(ConfigurationError):
        PlanOptions(Output.HELM, **given).checked()


def test_claim_has_room_for_twice_the_library() -> None:
    """The size is never below twice the content, and at least 10 GiB."""
    for content in (0, 1, 5 << 30, (5 << 30) + 1, 10**13):
        size = int(claim_for(content).size.removesuffix("Gi"))
        assert size >= 10
        assert size << 30 >= 2 * content
        assert size % 5 == 0
