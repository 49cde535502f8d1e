"""The command ``plexodus-puller status``."""

from __future__ import annotations

import click

from initpuller.commands.options import AS_JSON, TARGET
from shared.program.screen import WATCH, keep_showing
from shared.program.standard_streams import show


@click.command()
@TARGET
@AS_JSON
@WATCH
def status(*, target: str, as_json: bool, watch: bool) -> None:
    """Show the state of the pull to this volume.

    \b
    Examples:
      plexodus-puller status --target /config --json
      plexodus-puller status --target /config --watch
    """
    from initpuller.volume.status import as_json as to_json
    from initpuller.volume.status import as_text, read_standing

    def screen() -> str:
        found = read_standing(target)
        return to_json(found) if as_json else as_text(found)

    if watch:
        keep_showing(screen)
    show(screen())
