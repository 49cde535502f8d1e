"""The puller's preflight queries both sides, writes nothing, and each check can fail."""

from __future__ import annotations

import json
import os
import re
import shutil
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from rig.programs import Agent, Puller, clean_environment, program
from rig.volume import fingerprint

from bench.plexlibrary import LibraryShape, make_library
from initpuller.plex.version_gate import VersionGate
from initpuller.pull.checks.filesystem_names import check_filesystem
from initpuller.pull.checks.target_checks import (
    VolumeFacts,
    check_existing,
    check_inodes,
    check_media,
    check_space,
    predict,
)
from initpuller.volume.foreign_library import Wholeness
from shared.checks import Check, Outcome
from shared.wire.protocol import LIBRARY, LIBRARY_SERVER, Library, LibraryReport, MediaFolder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PASS, WARNING, FAILURE = Outcome.PASS, Outcome.WARNING, Outcome.FAILURE
SERVER = "Application Support/Plex Media Server"
SAME = "1.40.1.8227-c0dd5a73e"


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """Return a small Plex library of version 1.40.1."""
    library = tmp_path / "vm" / "Library"
    library.parent.mkdir()
    make_library(library, LibraryShape(300, 8_000_000, 2_000_000))
    return library


def look(puller: Puller, *options: str) -> tuple[int, dict[str, Check], str]:
    """Return exit code, target checks by name, and the whole output."""
    done = program(
        "plexodus-puller", "preflight", "--target", puller.target, "--json", *options,
        check=False, environment={"PLEXODUS_PAIRING": puller.pairing},
    )  # fmt: skip
    found = json.loads(done.stdout) if done.stdout else {"target": []}
    checks = [
        Check(each["name"], Outcome(each["outcome"]), each["found"], each.get("advice", ""))
        for each in found["target"]
    ]
    return done.returncode, {check.name: check for check in checks}, done.stdout + done.stderr


def test_preflight_checks_both_sides(puller: Puller, agent: Agent, library: Path) -> None:
    """A preflight shows both sides, changes neither of them, and makes no scan."""
    before, volume = fingerprint(library), os.listdir(puller.target)
    done = program(
        "plexodus-puller", "preflight", "--target", puller.target, "--plex-version", SAME,
        environment={"PLEXODUS_PAIRING": puller.pairing},
    )  # fmt: skip
    source, _, target = done.stdout.partition("\nHere\n")
    assert "pass     library database" in source
    assert f"{SAME} on both sides" in target
    assert "there is no Library yet" in target
    assert "/srv/media/Movies (Movies)" in target
    assert "0 failure" in source
    assert "0 failure" in target
    assert fingerprint(library) == before
    assert os.listdir(puller.target) == volume
    assert agent.requests() == ["GET /v1/library", "GET /v1/probe", "PUT /v1/checks"]


def test_unsound_source_fails_the_preflight(puller: Puller, library: Path) -> None:
    """A damaged source exits 12 from the puller's side too."""
    (library / SERVER / "Preferences.xml").write_bytes(b"")
    code, _, said = look(puller, "--plex-version", SAME)
    assert code == 12
    assert "Preferences.xml" in said


@pytest.mark.parametrize(
    ("options", "outcome"),
    [
        (["--plex-version", SAME], PASS),
        (["--plex-version", "plexinc/pms-docker:1.40.1.8227-c0dd5a73e"], PASS),
        (["--plex-version", "1.41.0.8992-8463ad060"], WARNING),
        (["--plex-version", "1.40.0.7998-c29d4c0c8"], FAILURE),
        (["--plex-version", "1.40.0.7998-c29d4c0c8", "--version-policy", "warn"], WARNING),
        (["--plex-version", "latest"], WARNING),
        ([], WARNING),
    ],
)
def test_preflight_compares_the_versions_of_plex(
    puller: Puller, options: list[str], outcome: Outcome
) -> None:
    """An equal Plex version passes, a newer one warns, and an older one is refused."""
    code, checks, said = look(puller, *options)
    assert checks["version"].outcome is outcome, said
    assert code == (12 if outcome is FAILURE else 0)
    assert bool(checks["version"].advice) == (outcome is not PASS)


def test_version_from_the_environment(puller: Puller) -> None:
    """The version comes from ``PLEXODUS_PLEX_VERSION``, as in a pod."""
    environment = {"PLEXODUS_PAIRING": puller.pairing, "PLEXODUS_PLEX_VERSION": "1.2.3.4"}
    done = program(
        "plexodus-puller", "preflight", "--target", puller.target,
        check=False, environment=clean_environment() | environment,
    )  # fmt: skip
    assert done.returncode == 12
    assert "1.2.3.4 is older" in done.stdout


def test_database_that_was_not_checked(puller: Puller) -> None:
    """A skipped database check is a warning with reason and size, and does not end the move."""
    done = program(
        "plexodus-puller", "preflight", "--target", puller.target, "--json",
        "--database-check", "skip", environment={"PLEXODUS_PAIRING": puller.pairing},
    )  # fmt: skip
    checks = {check["name"]: check for check in json.loads(done.stdout)["source"]}
    for name in ("library database", "blobs database"):
        assert checks[name]["outcome"] == "warning"
        assert re.match(
            r"not checked, because the check was skipped on request; \d.* [KM]iB: /",
            checks[name]["found"],
        )


@pytest.mark.parametrize("route", [LIBRARY, LIBRARY_SERVER])
def test_unknown_depth_of_the_database_check(agent: Agent, route: str) -> None:
    """An unknown depth gets 400 with the choices, never a weaker check."""
    with closing(agent.connect()) as http:
        http.request(
            "GET",
            f"{route}?database-check=everything",
            headers={"Authorization": f"Bearer {agent.token}"},
        )
        answer = http.getresponse()
        said = json.loads(answer.read())
    assert answer.status == said["status"] == 400
    assert "full, quick, skip" in said["title"]


def test_incomplete_library_on_the_volume_fails_the_preflight(
    puller: Puller, library: Path, target: Path
) -> None:
    """An incomplete library on the volume is refused. A complete one is a warning."""
    shutil.copytree(library, target / "Library", symlinks=True)
    code, checks, _ = look(puller)
    assert code == 0
    assert checks["target"].outcome is WARNING
    (target / "Library" / SERVER / "Preferences.xml").unlink()
    code, checks, _ = look(puller)
    assert code == 12
    assert "Preferences.xml" in checks["target"].found


def report(content_bytes: int = 10**9, entries: int = 1000) -> LibraryReport:
    """Return a possible report of an agent."""
    return LibraryReport(
        library=Library(id="i", name="Library", host="h", path="/Library"),
        plex_version=None,
        entries=entries,
        content_bytes=content_bytes,
        media=[],
        checks=[],
        read_seconds=20,
    )


@pytest.mark.parametrize(
    ("names", "advice"),
    [
        (
            "nfs nfs4 cifs ceph lustre gpfs beegfs ocfs2 gfs2 fuse.sshfs fuse.juicefs",
            "block volume",
        ),
        ("fuse.s3fs fuse.rclone fuse.gcsfuse fuse.blobfuse2 fuse.seaweedfs", "block volume"),
        ("9p virtiofs vboxsf", "a disk of the node"),
        ("fuse.mergerfs", "cache.files=auto-full"),
        ("fuse fuseblk fuse.something", "malformed database"),
    ],
)
def test_filesystem_that_databases_have_trouble_with(names: str, advice: str) -> None:
    """The warning names it, and says what helps there; the probe decides what is refused."""
    for name in names.split():
        check = check_filesystem(name)
        assert check.outcome is WARNING
        assert check.found.startswith(f"{name}: ")
        assert advice in check.advice


@pytest.mark.parametrize("name", ["ext4", "xfs", "btrfs", "zfs", "overlay", "fusectl", None])
def test_filesystem_that_databases_work_on(name: str | None) -> None:
    """Nobody is warned of a disk."""
    assert check_filesystem(name).outcome is PASS


NEEDED = report()
EMPTY = VolumeFacts(None, None)


@pytest.mark.parametrize(
    ("check", "outcome"),
    [
        (check_space(NEEDED, 2 * 10**9), PASS),
        (check_space(NEEDED, 10**9), FAILURE),
        (check_space(NEEDED, None), WARNING),
        (check_inodes(1000, 1000), PASS),
        (check_inodes(1000, 999), FAILURE),
        (check_inodes(1000, None), PASS),
        (check_existing("Library", EMPTY), PASS),
        (check_existing("Library", replace(EMPTY, existing=Wholeness())), WARNING),
        (check_existing("Library", replace(EMPTY, existing=Wholeness(["x is empty"]))), FAILURE),
        (
            check_existing("Library", replace(EMPTY, existing=Wholeness(), is_mounted=True)),
            FAILURE,
        ),
    ],
    ids=lambda value: value.name if isinstance(value, Check) else None,
)
def test_unsuitable_volume_is_reported(check: Check, outcome: Outcome) -> None:
    """A volume that is too small, has too few inodes, is remote or not empty is reported."""
    assert check.outcome is outcome
    assert bool(check.advice) == (outcome is not PASS)


def test_media_that_the_pod_does_not_have() -> None:
    """Each missing media folder is reported with the section that uses it."""
    films, shows = MediaFolder("Movies", "/mnt/nas/films"), MediaFolder("TV", "/mnt/nas/tv")
    assert check_media([films, shows], [films, shows]).outcome is PASS
    missing = check_media([films, shows], [shows])
    assert missing.outcome is WARNING
    assert "/mnt/nas/films (Movies)" in missing.found
    assert "/mnt/nas/tv" not in missing.found
    assert check_media([], []).outcome is PASS


def test_source_without_a_version() -> None:
    """A source without a Plex version is a warning, whatever the pod's version is."""
    assert VersionGate(SAME).check(None).outcome is WARNING


def test_unreachable_agent_fails_the_preflight(
    tmp_path: Path, target: Path, library: Path, new_agent: Callable[[Path], Agent]
) -> None:
    """An unreachable agent exits 11 after the usual retries, and a missing volume exits 2."""
    agent = new_agent(library)
    pairing = agent.pair()
    agent.start()
    puller = Puller(tmp_path / "not there", tmp_path / "log", pairing)
    assert look(puller)[0] == 2
    token = pairing.partition("//")[2].partition("@")[0]
    puller = Puller(target, tmp_path / "log", pairing.replace(token, "x" * 43))
    assert look(puller)[0] == 10


@pytest.mark.parametrize(
    ("rate", "said"),
    [(10**7, ("at least 2 min", "by the network, 9.5 MiB/s")), (10**9, ("at least 20 s", "disk"))],
)
def test_preflight_estimates_the_time(rate: float, said: tuple[str, ...]) -> None:
    """The estimate uses the slower of the VM's disk and the network, both measured."""
    check = predict(report(), rate)
    assert check.outcome is PASS
    assert all(words in check.found for words in said), check.found


@pytest.mark.parametrize(
    ("image", "found"),
    [
        ("latest", "nobody can know from here"),
        ("plexinc/pms-docker", "nobody can know from here"),
        ("registry.example:5000/plexinc/pms-docker", "nobody can know from here"),
        ("plexinc/pms-docker:public", "installs the newest Plex"),
        ("plexpass", "installs the newest Plex"),
        ("linuxserver/plex:latest", "nobody can know from here"),
        ("linuxserver/plex:arm64v8", "is not known"),
        ("", "is not known"),
    ],
)
def test_image_without_a_version_in_its_tag(image: str, found: str) -> None:
    """The gate says what will run, or that nobody can know, and names the source's version."""
    check = VersionGate(image).check(SAME)
    assert check.outcome is WARNING
    assert found in check.found
    assert SAME in check.advice or not image
