"""The command ``plexodus-puller watch``."""

from __future__ import annotations

import signal

import click

from initpuller.commands.options import (
    PLEX_URL,
    TARGET,
    apply_paths_option,
    check_mappings,
    map_option,
    option,
)
from initpuller.commands.pairing import paired, pairing_if_usable


@click.command()
@paired
@TARGET
@PLEX_URL
@map_option()
@apply_paths_option()
@option(
    "--listen",
    metavar="ADDRESS:PORT",
    default="[::]:8444",
    help="Address for /healthz, /readyz, /progress and /metrics.",
)
@option(
    "--interval",
    metavar="SECONDS",
    type=click.FloatRange(0.1, 3600),
    default=5.0,
    help="Time in seconds between two checks whether Plex is up.",
)
def watch(
    *,
    pairing_file: str | None,
    client_certificate: str,
    client_key: str,
    target: str,
    plex_url: str,
    mappings: tuple[str, ...],
    applies: bool,
    listen: str,
    interval: float,
) -> None:
    """Wait until Plex has started on the moved library, then compare it with the source.

    Then write 'migrated' to the agent's log, answer probes, and idle until stopped. Without a valid
    pairing, nothing is written to the agent's log. If Plex migrates its database, wait and log it.

    \b
    Example:
      plexodus-puller watch --target /config --pairing-file pairing \\
          --map /mnt/nas-plex=/media/library --apply-paths
    """
    from initpuller.plex.identity import check_url
    from initpuller.watch.sidecar import Watch, WatchOptions
    from shared.wire.pairing import parse_address

    check_mappings(mappings, applies=applies)
    options = WatchOptions(
        target=target,
        plex_url=check_url(plex_url),
        pairing=pairing_if_usable(pairing_file, client_certificate, client_key),
        mappings=mappings,
        applies=applies,
        listen=parse_address(listen),
        interval=interval,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: options.stopping.set())
    Watch(options).run()
