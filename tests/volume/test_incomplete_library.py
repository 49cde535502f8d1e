"""A Plex library from another program: a complete one is left alone, an incomplete one refused."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from contextlib import closing
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest
from rig.programs import Agent, Puller
from rig.volume import fingerprint, run_puller

from initpuller.volume.filesystem import filesystem_type

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SERVER = "Application Support/Plex Media Server"
DATABASE = f"{SERVER}/Plug-in Support/Databases/com.plexapp.plugins.library.db"


@pytest.fixture
def existing(made: Path, target: Path) -> Path:
    """Return a library on the volume that another program wrote."""
    shutil.copytree(made, target / "Library", symlinks=True)
    return target / "Library"


@pytest.fixture
def puller(tmp_path: Path, target: Path, new_agent: Callable[[Path], Agent], made: Path) -> Puller:
    """Return a puller that is paired with an agent that does not run."""
    return Puller(target, tmp_path / "puller.log", new_agent(made).pair())


def test_complete_library_is_left_alone(puller: Puller, existing: Path) -> None:
    """A complete library stays unchanged, with a warning."""
    before = fingerprint(existing)
    done = puller.pull()
    assert done.code == 0, done.text
    assert "NOT OURS" in done.text
    assert fingerprint(existing) == before


@pytest.mark.parametrize("part", [0.02, 0.3, 0.9])
def test_incomplete_library_of_a_killed_tar_is_refused(
    puller: Puller, made: Path, target: Path, part: float
) -> None:
    """The partial library of a killed script is refused, and stays for inspection."""
    archive = subprocess.run(
        ["tar", "c", "-C", made.parent, "--sort=name", "Library"], check=True, capture_output=True
    ).stdout
    cut = archive[: int(len(archive) * part)]
    subprocess.run(["tar", "x", "-C", target], check=False, capture_output=True, input=cut)
    before = fingerprint(target / "Library")
    done = puller.pull()
    assert done.code == 14, done.text
    assert "a part of a Plex library" in done.reason()
    assert "set-aside" in done.reason()
    assert fingerprint(target / "Library") == before


def no_server_yet(library: Path) -> None:
    """Leave only a file above Plex's own folder."""
    shutil.rmtree(library / SERVER)
    (library / "Application Support" / "file").touch()


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no server yet": (no_server_yet, "Plex Media Server is not there"),
    "no preferences": (
        lambda library: (library / SERVER / "Preferences.xml").unlink(),
        "Preferences.xml is empty or not there",
    ),
    "empty preferences": (
        lambda library: (library / SERVER / "Preferences.xml").write_bytes(b""),
        "Preferences.xml is empty or not there",
    ),
    "no database": (lambda library: (library / DATABASE).unlink(), "library.db: cannot be read"),
    "half a database": (
        lambda library: (library / DATABASE).write_bytes(
            (library / DATABASE).read_bytes()[:1_000_000]
        ),
        "library.db: ",
    ),
    "an error page": (
        lambda library: (library / DATABASE).write_text("<html>404</html>"),
        "library.db: is not a SQLite database",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_library_that_cannot_be_complete_is_refused(
    puller: Puller, existing: Path, damage: str
) -> None:
    """An incomplete library is refused with the missing part."""
    inflict, told = DAMAGES[damage]
    inflict(existing)
    done = puller.pull()
    assert done.code == 14, done.text
    assert told in done.reason()


def damage_index(library: Path) -> None:
    """Give an index of the library's database another column than the schema says."""
    with closing(sqlite3.connect(library / DATABASE, isolation_level=None)) as database:
        database.execute("PRAGMA writable_schema = ON")
        changed = database.execute(
            "UPDATE sqlite_master SET sql = replace(sql, '(tag_id)', '(metadata_item_id)')"
            " WHERE name = 'index_taggings_on_tag_id' AND sql LIKE '%(tag_id)%'"
        )
        assert changed.rowcount == 1


@pytest.mark.parametrize(
    ("options", "code"), [((), 0), (("--database-check", "full"), 14)], ids=["quick", "full"]
)
def test_damage_that_only_a_full_check_finds(
    puller: Puller, existing: Path, options: tuple[str, ...], code: int
) -> None:
    """A quick check lets a pod start. A full check finds the damage."""
    damage_index(existing)
    done = puller.pull(*options)
    assert done.code == code, done.text
    if code:
        assert "index_taggings_on_tag_id" in done.reason()


def test_skipped_check_of_an_existing_library(puller: Puller, existing: Path) -> None:
    """The log names each unchecked database, and an empty database is still refused."""
    cut = (existing / DATABASE).read_bytes()[:1_000_000]
    (existing / DATABASE).write_bytes(cut)
    done = puller.pull("--database-check", "skip")
    assert done.code == 0, done.text
    assert "databases of the existing library not checked" in done.text
    assert "library.db (976.6 KiB): the check was skipped on request" in done.text
    (existing / DATABASE).write_bytes(b"")
    assert puller.pull("--database-check", "skip").code == 14


def test_slow_check_of_an_existing_library(
    existing: Path, target: Path, new_agent: Callable[[Path], Agent], made: Path
) -> None:
    """A check that takes too long is no damage: the pull exits 0 and logs that it was skipped."""
    before = fingerprint(existing)
    with patch("shared.plex.sqlite_query._SECONDS", 0.01):
        done = run_puller("pull", "--target", target, pairing=new_agent(made).pair())
    assert done.code == 0, done.text
    [said] = [line for line in done.log if "not checked" in line["event"]]
    assert all("did not finish" in line for line in said["databases"])
    assert len(said["databases"]) == 2
    assert fingerprint(existing) == before


def test_other_applications_folder_is_not_judged(puller: Puller, target: Path) -> None:
    """A folder called Library that is not Plex's is left alone, with the warning."""
    (target / "Library").mkdir()
    (target / "Library" / "books.db").write_text("not SQLite at all")
    assert puller.pull().code == 0


def test_incomplete_library_is_set_aside_on_request(
    puller: Puller, made: Path, existing: Path, new_agent: Callable[[Path], Agent]
) -> None:
    """``--on-existing set-aside`` renames the partial library, and the whole one arrives."""
    (existing / DATABASE).unlink()
    agent = new_agent(made)
    puller.pairing = agent.pair()
    agent.start()
    assert puller.pull("--on-existing", "set-aside").code == 0
    assert (existing / DATABASE).exists()
    (aside,) = puller.target.glob("Library.set-aside-*")
    assert not (aside / DATABASE).exists()


MOUNTS = """\
22 1 {device} / / rw - ext4 /dev/vda rw
23 22 0:77 / /config rw,relatime shared:1 - {kind} nas:/plex rw
"""


@pytest.mark.parametrize("kind", ["nfs4", "fuse.sshfs", "ext4"])
def test_filesystem_is_known(tmp_path: Path, kind: str) -> None:
    """The type of a volume's filesystem comes from the kernel's mount table alone."""
    device = tmp_path.stat().st_dev
    number = f"{device >> 8 & 0xFFF}:{device & 0xFF}"
    listing = tmp_path / "mountinfo"
    listing.write_text(MOUNTS.format(device="0:1", kind="nfs").replace("0:77", number)
                       .replace("- nfs ", f"- {kind} "))  # fmt: skip
    assert filesystem_type(str(tmp_path), str(listing)) == kind
    listing.write_text(MOUNTS.format(device="0:1", kind=kind))
    assert filesystem_type(str(tmp_path), str(listing)) is None
    assert filesystem_type("/proc") == "proc"
    unnamed = MOUNTS.replace("nas:/plex", "blobfuse2").format(device="0:1", kind="fuse")
    listing.write_text(unnamed.replace("0:77", number))
    assert filesystem_type(str(tmp_path), str(listing)) == "fuse.blobfuse2"
