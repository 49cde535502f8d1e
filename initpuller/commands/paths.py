"""``plexodus-puller paths``."""

from __future__ import annotations

import os

import click

from initpuller.commands.options import AS_JSON, TARGET, Globs


@click.command()
@TARGET
@click.option(
    "--map",
    "mappings",
    envvar="PLEXODUS_MAP",
    metavar="OLD=NEW",
    multiple=True,
    type=Globs(),
    help="Media that was below OLD on the VM is below NEW here; can be repeated.",
)
@AS_JSON
def paths(*, target: str, mappings: tuple[str, ...], as_json: bool) -> None:
    """Tell where Plex' libraries look for media, whether it is here, and what to change.

    Run it where the media is mounted as in Plex' container. The database is only read. Exits 12 if
    a media file is not where it is looked for.

    \b
    Examples:
      plexodus-puller paths --target /config
      plexodus-puller paths --target /config --map /mnt/nas-plex=/media/library
    """
    import msgspec

    from initpuller.plex.paths import as_text, look_at_sections, parse_mapping
    from initpuller.standing import read_standing
    from initpuller.volume.layout import USUAL_NAME
    from shared.errors import PreflightRefused

    library = os.path.join(target, read_standing(target).library or USUAL_NAME)
    sections = look_at_sections(library, [parse_mapping(each) for each in mappings])
    click.echo(msgspec.json.encode(sections) if as_json else as_text(sections))
    incomplete = [section.name for section in sections if section.missing]
    if incomplete:
        raise PreflightRefused(f"media is missing of: {', '.join(incomplete)}", path=library)
