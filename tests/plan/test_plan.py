"""The plan for one library: what is wrong in it would break a move, or hide a folder of media."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rig.plans import GOLDEN, LIBRARY, files, options, without_gaps

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


def planned_example(output: Output) -> dict[str, str]:
    """Return the plan of the library of the examples, with the names of the Flux example."""
    given = msgspec.structs.replace(options(output), namespace="media", release="plex", media=[])
    return files(EXAMPLE, given)


@ALL
def test_the_same_library_has_the_same_plan(output: Output) -> None:
    """A plan changes only with the library, so its diff can be reviewed (rig.plans writes it)."""
    here = GOLDEN / output
    paths = [path for path in here.rglob("*") if path.is_file()]
    written = {str(path.relative_to(here)): path.read_text() for path in paths}
    assert "@TODO" not in written.pop("plan.lock")
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


def test_plan_for_flux_is_the_documented_example() -> None:
    """Its objects are those in charts/values/gitops, with the values of a plan for Helm."""
    plan, values = planned_example(Output.FLUX), planned_example(Output.HELM)
    example = VALUES / "gitops" / "base" / "plex"
    assert parsed(plan["source.yaml"]) == parsed((example / "source.yaml").read_text())
    plex, theirs = parsed(plan["plex.yaml"]), parsed((example / "release.yaml").read_text())
    assert plex["spec"].pop("releaseName") == plex["metadata"]["name"] == "plex"
    assert plex == theirs
    assert plex["spec"]["values"] == parsed(values["plex.yaml"])
    ours, theirs = (parsed(text) for text in (
        plan["plexodus.yaml"], (example / "plexodus.yaml").read_text()
    ))  # fmt: skip
    assert ours["spec"]["values"] == parsed(values["plexodus.yaml"])
    del ours["spec"]["values"]["migrations"][0]["settings"]
    assert ours["spec"].pop("releaseName") == ours["metadata"]["name"]
    assert ours == theirs
    theirs = parsed((example / "kustomization.yaml").read_text())
    theirs["resources"][-1] = "plex.yaml"
    assert parsed(plan["kustomization.yaml"]) == theirs


def test_plan_for_argo_cd_is_the_documented_example() -> None:
    """Its objects are those in charts/values/gitops, but the values are in them."""
    plan, values = planned_example(Output.ARGOCD), planned_example(Output.HELM)
    for name in ("plexodus.yaml", "plex.yaml"):
        ours = parsed(plan[name])
        theirs = parsed((VALUES / "gitops" / "argocd" / name).read_text())
        theirs["spec"]["source"], _ = theirs["spec"].pop("sources")
        del theirs["spec"]["source"]["helm"]
        helm = ours["spec"]["source"].pop("helm")
        assert helm == {"releaseName": name[:-5], "valuesObject": parsed(values[name])}
        assert ours == theirs


@pytest.mark.parametrize(
    ("output", "path"),
    [
        (Output.FLUX, ("spec", "values")),
        (Output.ARGOCD, ("spec", "source", "helm", "valuesObject")),
    ],
)
def test_objects_of_all_days_have_the_values_for_helm(output: Output, path: list[str]) -> None:
    """Before and after the move, an object differs from that of the move in its values only."""
    plan, values = without_gaps(output), without_gaps(Output.HELM)

    def split(name: str) -> tuple[Any, Any]:
        found = parsed(plan[name])
        holder = found
        for each in path[:-1]:
            holder = holder[each]
        return found, holder.pop(path[-1])

    plexodus, _ = split("plexodus.yaml")
    assert split("preseed/plexodus.yaml") == (plexodus, parsed(values["preseed.yaml"]))
    plex, _ = split("plex.yaml")
    # A release that is not there would never be ready.
    assert (plex["spec"].pop("dependsOn", None) is not None) is (output is Output.FLUX)
    assert split("after/plex.yaml") == (plex, parsed(values["after.yaml"]))


@pytest.mark.parametrize("output", [Output.FLUX, Output.KUSTOMIZE])
def test_folder_of_the_days_before_is_applied_alone(output: Output) -> None:
    """It names nothing outside of it, and its objects are in the namespace of all others."""
    plan = without_gaps(output)
    before, all_of_it = (parsed(plan[f"{folder}kustomization.yaml"]) for folder in ("preseed/", ""))
    assert {f"preseed/{each}" for each in before["resources"]} <= plan.keys()
    assert before["namespace"] == all_of_it["namespace"] == "home"


def test_plain_job_copies_into_the_claim_of_the_pod() -> None:
    """A StatefulSet takes a claim of that name, and the README says how to remove the Job."""
    plan = without_gaps(Output.KUSTOMIZE)
    claim, job = parsed(plan["preseed/job.yaml"])
    _, plex = parsed(plan["plex.yaml"])
    [template] = plex["spec"]["volumeClaimTemplates"]
    named = (template["metadata"]["name"], plex["metadata"]["name"], "0")
    assert claim["metadata"]["name"] == "-".join(named)
    assert claim["spec"] == template["spec"]
    assert f"kubectl delete job {job['metadata']['name']} -n home" in plan["README.md"]


@pytest.mark.parametrize("output", [each for each in Output if each.has_addresses])
def test_missing_address_is_a_gap(output: Output) -> None:
    """Nothing can be applied without the addresses, and the README names both options."""
    plan = files(EXAMPLE, PlanOptions(output))
    where = ["source.yaml"] if output is Output.FLUX else ["plexodus.yaml", "plex.yaml"]
    for name in where:
        with pytest.raises(yaml.YAMLError):
            parsed(plan[name])
    for option in ("--plex-charts URL", "--plexodus-source URL"):
        assert option in plan["README.md"]
        assert option not in files(LIBRARY, options(output))["README.md"]


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
    plan = files(library, PlanOptions(Output.FLUX, media=[volume]))
    assert parsed(plan["plex.yaml"])["spec"]["values"] == plex
    assert parsed(plan["plexodus.yaml"])["spec"]["values"] == ours
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
