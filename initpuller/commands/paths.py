"""The command ``plexodus-puller paths``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from initpuller.commands.options import AS_JSON, PLEX_URL, TARGET, map_option, option
from shared.program.standard_streams import show

if TYPE_CHECKING:
    from collections.abc import Sequence

    from initpuller.plex.paths import Section


@click.command()
@TARGET
@map_option()
@option(
    "--apply",
    "is_applied",
    is_flag=True,
    help="Change the folders in the running Plex, one library section after the other: add the new"
    " folders, scan, remove the old folders. Emptying of trash is off meanwhile.",
)
@PLEX_URL
@AS_JSON
def paths(
    *, target: str, mappings: tuple[str, ...], is_applied: bool, plex_url: str, as_json: bool
) -> None:
    """Show where Plex's library sections have their media, whether it is here, and what to change.

    Run it where the media is mounted as in Plex's container. The database is only read. Exits 12 if
    a media file is missing; then nothing is applied.

    \b
    Examples:
      plexodus-puller paths --target /config
      plexodus-puller paths --target /config --map /mnt/nas-plex=/media/library
      plexodus-puller paths --target /config --map /mnt/nas-plex=/media/library --apply
    """
    import msgspec

    from initpuller.plex.paths import as_text, look_at_sections, parse_mapping
    from initpuller.volume.records.layout import USUAL_NAME
    from initpuller.volume.status import read_standing
    from shared.errors import PreflightRefused

    library = os.path.join(target, read_standing(target).library or USUAL_NAME)
    sections = look_at_sections(library, [parse_mapping(each) for each in mappings])
    show(msgspec.json.encode(sections).decode() if as_json else as_text(sections))
    incomplete = [section.name for section in sections if section.missing]
    if incomplete:
        raise PreflightRefused(f"media files are missing in: {', '.join(incomplete)}", path=library)
    if is_applied:
        _apply(target, plex_url, sections)


def _apply(target: str, plex_url: str, sections: Sequence[Section]) -> None:
    from initpuller.plex.api import PlexApi
    from initpuller.plex.apply import apply_sections
    from initpuller.plex.facts import check_identity
    from initpuller.plex.identity import check_url
    from initpuller.volume.records.target import open_layout
    from initpuller.volume.status import moved_plex
    from shared.checks import Outcome
    from shared.errors import PlexRefused

    facts, token = moved_plex(target)
    api = PlexApi(check_url(plex_url), token)
    identity = check_identity(facts, api.machine_identifier)
    if identity.outcome is Outcome.FAILURE:
        raise PlexRefused(identity.found, path=plex_url, hint=identity.advice)
    apply_sections(api, sections, open_layout(target).trash)
