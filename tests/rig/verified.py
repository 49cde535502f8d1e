"""A verified library that waits in staging, made in this process by the code of both sides."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from initpuller.volume.publish.publish import Observations, prepare
from initpuller.volume.records.layout import Layout
from rig.two_sides import TwoSides
from shared.frames.sha256sums import format_sums

if TYPE_CHECKING:
    from pathlib import Path

    from initpuller.volume.staging.staging import Staging


@dataclass(frozen=True)
class Verified:
    """A library, and a volume that has it in staging, with the record that says so."""

    library: Path
    volume: Path

    def copy(self, place: Path) -> Layout:
        """Return a copy of the volume, in the place of whatever is at ``place``."""
        if place.exists():
            shutil.rmtree(place)
        subprocess.run(["cp", "-a", self.volume, place], check=True)
        return Layout(str(place))


def grow(library: Path) -> Path:
    """Make a library of a few small entries of each kind."""
    below = library / "Plex" / "Metadata"
    below.mkdir(parents=True)
    (library / "Cache").mkdir()
    (library / "Links").mkdir()
    (library / "Links" / "link").symlink_to("../Plex/poster")
    (library / "Plex" / "poster").write_bytes(b"poster")
    (library / "Plex" / "hard").hardlink_to(library / "Plex" / "poster")
    (below / "large").write_bytes(bytes(range(256)) * 40)
    os.setxattr(below, "user.kept", b"yes")
    return library


def assembled(sides: TwoSides) -> Staging:
    """Return the library in staging, with all lists that a transfer leaves there."""
    listing = sides.scan()
    staging, name = sides.bring(listing), listing.snapshot.id
    shutil.copyfile(sides._store.open(name).omitted_path, sides.layout.omitted(name))
    with open(sides.layout.sums(name), "wb") as sums:
        sums.writelines(
            format_sums(lines, staging.digests.block(numbers))
            for numbers, lines in listing.manifest.pieces()
        )
    return staging


def verify(place: Path) -> Verified:
    """Make a library below the empty folder ``place``, and put it into staging, verified."""
    sides = TwoSides(place, grow(place / "vm" / "Library"))
    staging = assembled(sides)
    prepare(staging, "publishing", Observations(), displace=False)
    staging.close()
    return Verified(sides.library, place / "volume")
