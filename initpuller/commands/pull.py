"""``plexodus-puller pull``."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import click

from initpuller.commands.options import (
    DATABASE_CHECK,
    TARGET,
    Globs,
    check_mappings,
    database_checks,
    told_to_watch,
    version_gated,
)
from initpuller.commands.pairing import chosen_pairing, paired
from initpuller.volume.decision import OnExisting
from shared.errors import Interrupted

if TYPE_CHECKING:
    from initpuller.pull.options import PullOptions
    from initpuller.report.progress import PullProgress

_MAX_JOBS = 16


@click.command()
@paired
@TARGET
@click.option(
    "--owner",
    envvar="PLEXODUS_OWNER",
    metavar="UID:GID|keep",
    help="Owner of all files, as UID:GID. Default: PLEX_UID:PLEX_GID or PUID:PGID if set; otherwise"
    " the source's owners (needs root), or the current user.",
)
@click.option(
    "--exclude",
    envvar="PLEXODUS_EXCLUDE",
    metavar="GLOB",
    multiple=True,
    type=Globs(),
    help="Leave this out; can be repeated. In the environment: one a line.",
)
@click.option(
    "--exclude-regenerable",
    envvar="PLEXODUS_EXCLUDE_REGENERABLE",
    is_flag=True,
    help="Leave out what Plex makes again: Cache, Codecs, Crash Reports, Diagnostics, Drivers,"
    " Logs, Updates, dated copies of the databases.",
)
@click.option(
    "--jobs",
    envvar="PLEXODUS_JOBS",
    metavar="N",
    default=2,
    show_default=True,
    type=click.IntRange(1, _MAX_JOBS),
    help="Processes that fetch and unpack; each has a frame of 4 MiB in hand and asks for another.",
)
@click.option(
    "--on-existing",
    envvar="PLEXODUS_ON_EXISTING",
    default=OnExisting.SKIP.value,
    show_default=True,
    type=click.Choice([each.value for each in OnExisting]),
    help="What to do about a library that is there already and not ours.",
)
@click.option(
    "--set-preference",
    "set_preferences",
    envvar="PLEXODUS_SET_PREFERENCE",
    metavar="NAME=VALUE",
    multiple=True,
    type=Globs(),
    help="Change this in the volume's Preferences.xml before Plex starts on it; can be repeated."
    " autoEmptyTrash=0 keeps a first scan without media from deleting anything.",
)
@click.option(
    "--until",
    envvar="PLEXODUS_UNTIL",
    type=click.Choice(["done", "ready"]),
    default="done",
    show_default=True,
    help="ready: bring what can be brought while Plex runs, and publish nothing; a later pull has"
    " little left to bring.",
)
@click.option(
    "--rehearse",
    envvar="PLEXODUS_REHEARSE",
    is_flag=True,
    help="Bring a consistent copy while Plex runs, and leave it running: to try the new server. A"
    " later pull without this goes on from it.",
)
@click.option(
    "--listen",
    envvar="PLEXODUS_LISTEN",
    metavar="ADDRESS:PORT",
    help="Where /healthz, /readyz, /progress and /metrics are answered. Default: nowhere.",
)
@click.option(
    "--status-configmap",
    envvar="PLEXODUS_STATUS_CONFIGMAP",
    metavar="NAME",
    default="",
    help="In a cluster: the ConfigMap, of the pod's own namespace, that shows where the pull"
    " stands.",
)
@click.option(
    "--downtime",
    envvar="PLEXODUS_DOWNTIME",
    metavar="SECONDS",
    type=click.FloatRange(0, 86_400),
    default=30.0,
    show_default=True,
    help="Bring what has changed while Plex runs, pass after pass, until it would be down for no"
    " longer than this, or the passes get no shorter.",
)
@click.option(
    "--max-downtime",
    envvar="PLEXODUS_MAX_DOWNTIME",
    metavar="SECONDS",
    type=click.FloatRange(1, 7 * 86_400),
    default=3600.0,
    show_default=True,
    help="Have Plex started again, and exit with 17, if it was stopped for this long.",
)
@click.option(
    "--retry-failed",
    envvar="PLEXODUS_RETRY_FAILED",
    is_flag=True,
    help="Have Plex stopped although the last pull failed after that, and nothing has changed that"
    " the puller can see.",
)
@told_to_watch
@version_gated
@DATABASE_CHECK
@click.option(
    "--no-cutover",
    envvar="PLEXODUS_NO_CUTOVER",
    is_flag=True,
    help="Leave Plex on the VM as it is: you have stopped it, or there is none.",
)
def pull(
    *,
    pairing_file: str | None,
    client_certificate: str,
    client_key: str,
    target: str,
    owner: str | None,
    exclude: tuple[str, ...],
    exclude_regenerable: bool,
    jobs: int,
    on_existing: str,
    set_preferences: tuple[str, ...],
    until: str,
    rehearse: bool,
    listen: str | None,
    status_configmap: str,
    no_cutover: bool,
    plex_version: str,
    version_policy: str,
    database_check: str | None,
    downtime: float,
    max_downtime: float,
    retry_failed: bool,
    mappings: tuple[str, ...],
    applies: bool,
) -> None:
    """Bring the library, verified, in one rename; go on where an earlier run ended.

    Most is brought while Plex runs. Then the agent stops it, the rest is brought, and Plex stays
    stopped on the VM; if anything fails before that, it is started again. Exits 0 when the library
    is there, and at once when it was there.

    \b
    Examples:
      plexodus-puller pull --pairing-file pairing --target /config --owner 1000:1000
      plexodus-puller pull --pairing-file pairing --target /config --exclude Cache \\
          --exclude 'Crash Reports'
    """
    import asyncio
    from contextlib import ExitStack

    from initpuller.commands.reporting import probes, reported
    from initpuller.plex.preferences import parse_preferences
    from initpuller.plex.version_gate import VersionGate, VersionPolicy
    from initpuller.pull.options import PullOptions
    from initpuller.pull.recipe import is_over
    from initpuller.report.progress import PullProgress
    from initpuller.volume.ownership import choose_ownership, plex_owner
    from shared.plex.library import NEVER, REGENERABLE
    from shared.wire.pairing import parse_address

    if rehearse and until == "ready":
        raise click.UsageError("--rehearse publishes a copy, --until ready nothing: give one.")
    if max_downtime < downtime:
        raise click.UsageError("--max-downtime is less than --downtime: raise it.")
    progress = PullProgress()
    with reported(progress, status_configmap), ExitStack() as stack:
        if is_over(target, rehearse=rehearse):
            return
        check_mappings(mappings, applies=applies)
        if listen:
            stack.enter_context(probes(progress, parse_address(listen)))
        source_check, existing_check = database_checks(database_check)
        options = PullOptions(
            pairing=chosen_pairing(pairing_file, client_certificate, client_key),
            target=target,
            ownership=choose_ownership(owner or plex_owner(os.environ)),
            exclude=[*NEVER, *(REGENERABLE if exclude_regenerable else ()), *exclude],
            jobs=jobs,
            on_existing=OnExisting(on_existing),
            preferences=parse_preferences(set_preferences),
            cutover=not no_cutover and not rehearse,
            is_vouched=no_cutover and not rehearse and until == "done",
            rehearse=rehearse,
            until_ready=until == "ready",
            downtime=downtime,
            max_downtime=max_downtime,
            retry_failed=retry_failed,
            gate=VersionGate(plex_version, VersionPolicy(version_policy)),
            database_check=source_check,
            existing_check=existing_check,
        )
        asyncio.run(_until_signalled(options, progress))


async def _until_signalled(options: PullOptions, progress: PullProgress) -> None:
    """Run the pull; SIGTERM and SIGINT end it with its journal in order."""
    import asyncio

    from initpuller.pull import recipe

    task = asyncio.create_task(recipe.pull(options, progress))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        raise Interrupted("stopped by a signal", hint="The next run goes on from here.") from None
