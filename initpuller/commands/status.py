"""``plexodus-puller status``."""

from __future__ import annotations

import click

from initpuller.commands.options import AS_JSON, TARGET


@click.command()
@TARGET
@AS_JSON
def status(*, target: str, as_json: bool) -> None:
    """Tell where the pull onto this volume stands.

    \b
    Example:
      plexodus-puller status --target /config --json
    """
    from initpuller import standing

    found = standing.read_standing(target)
    click.echo(standing.as_json(found) if as_json else standing.as_text(found))
