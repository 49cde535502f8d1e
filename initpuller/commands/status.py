"""The command ``plexodus-puller status``."""

from __future__ import annotations

import click

from initpuller.commands.options import AS_JSON, TARGET


@click.command()
@TARGET
@AS_JSON
def status(*, target: str, as_json: bool) -> None:
    """Show the state of the pull to this volume.

    \b
    Example:
      plexodus-puller status --target /config --json
    """
    from initpuller.volume.status import as_json as to_json
    from initpuller.volume.status import as_text, read_standing

    found = read_standing(target)
    click.echo(to_json(found) if as_json else as_text(found))
