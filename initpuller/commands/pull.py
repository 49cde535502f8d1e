"""The command ``plexodus-puller pull``."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from initpuller.commands.options import (
    DATABASE_CHECK,
    TARGET,
    Globs,
    apply_paths_option,
    check_mappings,
    database_checks,
    map_option,
    option,
    version_gated,
)
from initpuller.commands.pairing import chosen_pairing, paired
from initpuller.volume.decision import OnExisting
from shared.errors import Interrupted, PlexodusError
from shared.program.standard_streams import remark

if TYPE_CHECKING:
    from types import FrameType

    from initpuller.pull.options import PullOptions
    from initpuller.report.progress import PullProgress

_MAX_JOBS = 16
_STATUS_VARIABLE = "PLEXODUS_STATUS_CONFIGMAP"
"""Read when the options cannot be: those of ``--status-configmap``."""


class _ReportedCommand(click.Command):
    """A command whose refusal of its options is a failed pull for the cluster, too."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,  # noqa: ANN401 - as click has it
    ) -> click.Context:
        """Parse the options; report those that cannot be used."""
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.UsageError as error:
            from initpuller.cluster.events import ClusterReport
            from initpuller.report.progress import PullProgress

            progress = PullProgress()
            with ClusterReport(progress, os.environ.get(_STATUS_VARIABLE, "")):
                progress.failed(error.format_message())
            raise


@click.command(cls=_ReportedCommand)
@paired
@TARGET
@option(
    "--owner",
    metavar="UID:GID|keep",
    help="Owner of all files, as UID:GID. Default: PLEX_UID:PLEX_GID or PUID:PGID if set; otherwise"
    " the source's owners (needs root), or the current user.",
)
@option(
    "--exclude",
    metavar="GLOB",
    multiple=True,
    type=Globs(),
    help="Leave out names or paths that match GLOB. Repeat it for several globs. In the"
    " environment: one on each line.",
)
@option(
    "--exclude-regenerable",
    is_flag=True,
    help="Leave out what Plex creates again: Cache, Codecs, Crash Reports, Diagnostics, Drivers,"
    " Logs, Updates, and dated copies of the databases.",
)
@option(
    "--jobs",
    metavar="N",
    default=2,
    type=click.IntRange(1, _MAX_JOBS),
    help="Number of threads. Each unpacks one frame of 4 MiB and requests the next.",
)
@option(
    "--on-existing",
    default=OnExisting.SKIP.value,
    type=click.Choice([each.value for each in OnExisting]),
    help="What happens if the volume has a library that plexodus did not put there.",
)
@option(
    "--set-preference",
    "set_preferences",
    metavar="NAME=VALUE",
    multiple=True,
    type=Globs(),
    help="Set a preference in the volume's Preferences.xml before Plex starts. Repeat it for"
    " several. With autoEmptyTrash=0, a first scan without media deletes nothing.",
)
@option(
    "--until",
    type=click.Choice(["done", "ready"]),
    default="done",
    help="ready: transfer what is possible while Plex runs, and publish nothing. A later pull"
    " transfers only the changes.",
)
@option(
    "--rehearse",
    is_flag=True,
    help="Publish a consistent copy for trying the new server. Plex on the VM keeps running. A"
    " later pull without --rehearse reuses the copy.",
)
@option(
    "--listen",
    metavar="ADDRESS:PORT",
    help="Address for /healthz, /readyz, /progress and /metrics. Default: none.",
)
@option(
    "--status-configmap",
    metavar="NAME",
    default="",
    help="In a cluster: name of a ConfigMap in the pod's namespace. The pull writes its state to"
    " it. Default: none.",
)
@option(
    "--downtime",
    metavar="SECONDS",
    type=click.FloatRange(0, 86_400),
    default=30.0,
    help="Repeat live passes until one takes less than this time in seconds, or until they get no"
    " shorter. Then stop Plex for about that time.",
)
@option(
    "--max-downtime",
    metavar="SECONDS",
    type=click.FloatRange(1, 7 * 86_400),
    default=3600.0,
    help="Longest time in seconds that Plex may be stopped. After that, Plex is started on the VM"
    " and pull exits with 17.",
)
@option(
    "--retry-failed",
    is_flag=True,
    help="Stop Plex although the last pull failed with Plex stopped and the puller sees no change,"
    " or although the agent makes a pause between stops.",
)
@map_option(hidden=True)  # of ``watch`` in the same pod: one that cannot start prevents Plex from
@apply_paths_option(hidden=True)  # starting, so they are checked before Plex is stopped
@version_gated
@DATABASE_CHECK
@option(
    "--no-cutover",
    is_flag=True,
    help="Do not stop Plex: you have stopped it yourself, or are not moving Plex.",
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
    """Move the library to the volume; resume where an earlier run ended.

    Most of it moves while Plex runs. Then the agent stops Plex, and the changes move. Everything is
    verified before the library appears in one rename, and Plex stays stopped on the VM. If anything
    fails before that, the agent starts Plex again. Exits 0 when the library is there.

    \b
    Examples:
      plexodus-puller pull --pairing-file pairing --target /config --owner 1000:1000
      plexodus-puller pull --pairing-file pairing --target /config --exclude Cache \\
          --exclude 'Crash Reports'
    """
    import asyncio
    from contextlib import ExitStack, suppress

    import msgspec

    from initpuller.cluster.events import ClusterReport
    from initpuller.commands.summary import summary
    from initpuller.plex.preferences import parse_preferences
    from initpuller.plex.version_gate import VersionGate, VersionPolicy
    from initpuller.pull.options import PullOptions, choose_mode
    from initpuller.pull.recipe import published_earlier
    from initpuller.report.metrics import metrics
    from initpuller.report.probes import Probes
    from initpuller.report.progress import PullProgress
    from initpuller.volume.ownership import choose_ownership, plex_owner
    from initpuller.volume.records.receipt import load_receipt
    from initpuller.volume.records.target import open_layout
    from initpuller.volume.status import read_standing
    from shared.plex.library import NEVER, REGENERABLE
    from shared.wire.pairing import parse_address

    progress = PullProgress()
    with ClusterReport(progress, status_configmap), ExitStack() as stack:
        if rehearse and until == "ready":
            raise click.UsageError("--rehearse and --until ready exclude each other: remove one.")
        if max_downtime < downtime:
            raise click.UsageError("--max-downtime is less than --downtime: raise it.")
        if (there := published_earlier(target, rehearse=rehearse)) is not None:
            progress.earlier(there.snapshot, there.entries)
            return
        check_mappings(mappings, applies=applies)
        if listen:
            probes = Probes(
                parse_address(listen),
                is_ready=lambda: progress.standing().phase == "done",
                progress=lambda: msgspec.json.encode(progress.standing()),
                metrics=lambda: metrics(progress.standing().phase, progress.standing()),
            )
            stack.enter_context(probes)
        source_check, existing_check = database_checks(database_check)
        options = PullOptions(
            pairing=chosen_pairing(pairing_file, client_certificate, client_key),
            target=target,
            ownership=choose_ownership(owner or plex_owner(os.environ)),
            exclude=[*NEVER, *(REGENERABLE if exclude_regenerable else ()), *exclude],
            jobs=jobs,
            on_existing=OnExisting(on_existing),
            preferences=parse_preferences(set_preferences),
            mode=choose_mode(
                rehearse=rehearse, until_ready=until == "ready", no_cutover=no_cutover
            ),
            downtime=downtime,
            max_downtime=max_downtime,
            retry_failed=retry_failed,
            gate=VersionGate(plex_version, VersionPolicy(version_policy)),
            database_check=source_check,
            existing_check=existing_check,
        )
        begun = time.monotonic()
        asyncio.run(_until_signalled(options, progress))
        if sys.stdout.isatty():
            took = time.monotonic() - begun
            with suppress(PlexodusError, OSError, UnicodeError):  # the library is there
                receipt = load_receipt(open_layout(target))
                remark(summary(read_standing(target), receipt, took, progress.down))


async def _until_signalled(options: PullOptions, progress: PullProgress) -> None:
    """Run the pull; a signal ends it with a complete journal, unless it has published.

    Signals that come after its end are ignored: the exit code is decided.

    Raises:
        Interrupted: it was ended.
    """
    import asyncio

    from initpuller.pull import recipe

    loop, task = asyncio.get_running_loop(), asyncio.create_task(recipe.pull(options, progress))
    ending = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup(1) has it ignored
        ending.append(signal.SIGHUP)
    for number in ending:
        # Not a handler of the loop: the loop has the default set when it removes one.
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(task.cancel))
    try:
        await task
    except asyncio.CancelledError:
        if progress.standing().phase != "done":
            raise Interrupted("stopped by a signal", hint="Run pull again to resume.") from None
    finally:
        for number in ending:
            signal.signal(number, _ignore)


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Ignore a signal that would replace the exit code. Children do not inherit this."""
