"""A library whose plan is in ``tests/plan/golden``; run as a module, it writes the plans there."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec

from agent.plan.folder import render, write
from agent.plan.library import PlannedLibrary
from agent.plan.options import MediaVolume, Output, PlanOptions
from agent.plan.record import facts_of
from shared.wire.protocol import MediaFolder

GOLDEN = Path(__file__).parent.parent / "plan" / "golden"
LIBRARY = PlannedLibrary(
    version="1.41.2.9200-c6bbc1b53",
    content_bytes=212_000_000_000,
    entries=4_100_000,
    owner=(997, 996),
    regenerable={"Cache": 3_400_000_000, "Crash Reports": 0, "Logs": 12_000_000},
    media=[
        MediaFolder("Films", "/mnt/nas/films"),
        MediaFolder("Films", "/mnt/nas2/films"),
        MediaFolder("Kid's", "/mnt/Kid's"),
        MediaFolder("Séries: l'été", "/mnt/nas/séries"),
    ],
)
"""One that takes long, with paths that change, and media whose volume nobody has named."""


def options(output: Output) -> PlanOptions:
    """Return options with something for each of them."""
    addresses = {}
    if output.has_addresses:
        addresses = {
            "plex_charts": "https://charts.example.org/plex",
            "plexodus_source": "https://git.example.org/plexodus/plexodus",
        }
    return PlanOptions(
        output,
        image="registry.example.org/plexodus-puller",
        namespace="home",
        release="living-room",
        storage_class="local-path",
        media=[MediaVolume("/mnt/nas", "nas", "/media")],
        **addresses,
    )


def files(library: PlannedLibrary, given: PlanOptions) -> dict[str, str]:
    """Return the files of a new plan."""
    return render(library, given, facts_of(library, None))


def without_gaps(output: Output) -> dict[str, str]:
    """Return the files of the same library's plan, with a volume for all of its media."""
    media = [
        MediaVolume("/mnt/nas", "nas", "/media"),
        MediaVolume("/mnt", "other", "/mnt"),
    ]
    return files(LIBRARY, msgspec.structs.replace(options(output), media=media))


def main() -> None:
    """Write the plans, after a change of the templates; the diff shows what has changed."""
    shutil.rmtree(GOLDEN, ignore_errors=True)
    for output in Output:
        given, facts = options(output), facts_of(LIBRARY, None)
        write(str(GOLDEN / output), files(LIBRARY, given), given, facts, None)


if __name__ == "__main__":
    main()
