"""The command ``plexodus-puller verify``."""

from __future__ import annotations

import click

from initpuller.commands.options import TARGET
from shared.program.standard_streams import remark


@click.command()
@TARGET
def verify(*, target: str) -> None:
    """Read every file on the volume again and compare it with the receipt's digests.

    Files that Plex has changed since are reported too. To do the same by hand:
    cd TARGET && sha256sum -c .plexodus/SHA256SUMS

    \b
    Example:
      plexodus-puller verify --target /config
    """
    from initpuller.volume.status import verify as verify_volume

    receipt = verify_volume(target)
    remark(f"{receipt.files} files are as they were moved ({receipt.verified})")
