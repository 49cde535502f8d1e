"""The options of a plan: what would not be taken later is refused before anything is written."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from rig.plans import LIBRARY, files

from agent.plan.options import MediaVolume, Output, PlanOptions, parse_media
from agent.plan.owner import choose_owner
from shared.errors import ConfigurationError


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


GIT = [
    "https://git.example.org/plexodus/plexodus",
    "https://git.example.org:8443/plexodus/plexodus.git",
    "https://[2001:db8::1]/~plex/plexodus",
    "ssh://git@git.example.org:2222/plexodus/plexodus",
]
ONLY_ARGOCD = ["git://git.example.org/plexodus", "git@git.example.org:plexodus/plexodus.git"]
WRONG = [
    "git.example.org/plexodus",
    "http://git.example.org/plexodus",
    "file:///srv/plexodus",
    "https://",
    "https:///plexodus",
    "https://user:password@git.example.org/plexodus",
    "https://token@git.example.org/plexodus",
    "https://git.example.org/plexodus?token=1",
    "ssh://git:password@git.example.org/plexodus",
    "https://git.example.org/ plexodus",
    "https://git.example.org/plexodus\n",
    'https://git.example.org/"plexodus',
    "-oProxyCommand@git.example.org:plexodus",
    "git@-oProxyCommand:plexodus",
    "git@git.example.org:",
]


def test_address_of_the_git_repository() -> None:
    """Each output takes the forms that its objects have, and no secret, blank or line break."""
    for output, right in ((Output.FLUX, GIT), (Output.ARGOCD, GIT + ONLY_ARGOCD)):
        for url in [*GIT, *ONLY_ARGOCD, *WRONG]:
            given = PlanOptions(output, plexodus_source=url)
            if url in right:
                assert given.checked() == given
            else:
                with pytest.raises(ConfigurationError, match="--plexodus-source"):
                    given.checked()


@pytest.mark.parametrize("output", [Output.HELM, Output.KUSTOMIZE])
@pytest.mark.parametrize("name", ["plex_charts", "plexodus_source"])
def test_address_without_a_place(output: Output, name: str) -> None:
    """A plan whose files name no repository does not ignore the address of one."""
    given: dict[str, Any] = {name: "https://git.example.org/plexodus"}
    with pytest.raises(ConfigurationError, match=f"no place for --{name.replace('_', '-')}"):
        PlanOptions(output, **given).checked()


def test_address_of_the_charts() -> None:
    """Charts come over HTTPS, and the address has no secret either."""
    for url in ("https://charts.example.org", "https://charts.example.org:8443/plex/"):
        given = PlanOptions(Output.FLUX, plex_charts=url)
        assert given.checked() == given
    for url in (*WRONG, GIT[-1], *ONLY_ARGOCD, "oci://charts.example.org/plex"):
        with pytest.raises(ConfigurationError, match="--plex-charts"):
            PlanOptions(Output.ARGOCD, plex_charts=url).checked()


@pytest.mark.parametrize(
    ("environment", "owner", "source"),
    [
        ({}, (997, 996), "the library's files"),
        ({"PLEX_UID": "1001", "PLEX_GID": "100"}, (1001, 100), "`PLEX_UID` and `PLEX_GID`"),
        ({"PUID": "1001", "PGID": "0"}, (1001, 0), "`PUID` and `PGID`"),
        ({"PUID": "1001", "PGID": ""}, (997, 996), "the library's files"),
        ({"PLEX_UID": "1001", "PGID": "100"}, (997, 996), "the library's files"),
        ({"PUID": "plex", "PGID": "100"}, (997, 996), "the library's files"),
        ({"PUID": "2147483648", "PGID": "100"}, (997, 996), "the library's files"),
        ({"PUID": "\u0661", "PGID": "100"}, (997, 996), "the library's files"),
        ({"PUID": "0", "PGID": "0"}, (997, 996), "the library's files"),
    ],
)
def test_owner_is_that_of_plexs_container(
    environment: dict[str, str], owner: tuple[int, int], source: str
) -> None:
    """The container's variables count if both are numbers; else the files' owner, never root."""
    found, where = choose_owner((997, 996), environment)
    assert found == owner
    assert where.startswith(source)
    assert choose_owner((0, 0), {})[0] == (1000, 1000)
    library = replace(LIBRARY, owner=found, owner_source=where)
    row = f"| owner of the files | {owner[0]}:{owner[1]} | {where} |"
    assert row in files(library, PlanOptions(Output.HELM))["README.md"]
