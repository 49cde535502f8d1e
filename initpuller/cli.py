"""The command line of ``plexodus-puller``."""

from __future__ import annotations

import click

from initpuller.commands import check, paths, preflight, pull, status, verify, watch
from shared.program.version import version_option


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@version_option("plexodus-puller")
def cli() -> None:
    """Move a Plex Media Server library from its agent to a volume.

    \b
    Examples:
      plexodus-puller pull   --pairing-file /etc/plexodus/pairing --target /config
      plexodus-puller status --target /config
      plexodus-puller verify --target /config

    Every option can be set in the environment, --target as PLEXODUS_TARGET. The pairing string
    itself can be set as PLEXODUS_PAIRING. Exit codes: docs/exit-codes.md.
    """


for _command in (
    preflight.preflight,
    pull.pull,
    paths.paths,
    check.check,
    watch.watch,
    status.status,
    verify.verify,
):
    cli.add_command(_command)
