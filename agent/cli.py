"""The command line of ``plexodus-agent``."""

from __future__ import annotations

import asyncio
import os
import time
from functools import partial
from typing import TYPE_CHECKING

import click
import msgspec

from agent import daemon
from agent.app import make_cutover
from agent.cli_options import (
    CONFIG,
    DATABASE_CHECK,
    JSON,
    LIBRARY,
    STATE,
    kubernetes_name,
    setting,
)
from agent.cutover.record import CutoverRecord
from agent.cutover.start_block import keep_stopped as keep_moved_plex_stopped
from agent.cutover.start_block import lift_start_blocks
from agent.host.addresses import own_address
from agent.host.migration_log import MigrationLog
from agent.host.state_owner import become_owner, write_as_owner
from agent.host.systemd import is_shutting_down, state_path_left
from agent.plan_command import plan
from agent.plex.services import find_library, plex_service, recorded_service
from agent.secret_formats import OUTPUTS
from agent.server.credentials import make_pairing
from agent.settings import Settings, load_settings
from agent.source.library import open_library
from agent.source_checks import check_for_preflight, refuse_failures
from agent.status import read_status, status_screen
from shared.checks import page
from shared.errors import ConfigurationError, CutoverRefused, StorageError, storage_errors
from shared.plex.sqlite_check import DatabaseCheck
from shared.program.screen import WATCH, keep_showing
from shared.program.standard_streams import remark, show
from shared.program.version import version_option
from shared.wire.pairing import parse_address

if TYPE_CHECKING:
    from agent.cutover.control import CutoverControl
    from shared.errors import PlexodusError
    from shared.wire.protocol import CutoverStanding

_GLANCE = 0.5
"""Seconds between two checks for new lines, or for Plex."""
_SETTLE_SECONDS = 75.0
"""Longest wait until Plex runs after an undo; systemd allows an ExecStopPost 90 s."""
_BETWEEN_STARTS = 5.0
"""Seconds after a start of Plex that failed."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@version_option("plexodus-agent")
def cli() -> None:
    """Serve a Plex Media Server library to the plexodus puller.

    \b
    Examples, on a VM where the package is installed, and anywhere else:
      plexodus-agent pair && systemctl start plexodus-agent
      plexodus-agent pair  --state ./state --address 192.0.2.10:8443
      plexodus-agent serve --state ./state --listen 0.0.0.0:8443 --library ./Library

    Options override the environment (PLEXODUS_STATE for --state), which overrides the settings in
    /etc/plexodus/agent.toml. Exit codes: docs/exit-codes.md.
    """


@cli.command()
@CONFIG
@STATE
@setting(
    "address", "HOST:PORT", "Address of this agent for the puller. Default: this machine's address."
)
@click.option(
    "--output",
    envvar="PLEXODUS_OUTPUT",
    type=click.Choice(list(OUTPUTS)),
    default="string",
    show_default=True,
    help="Format: the bare string, the manifest of a Secret, or a command to paste.",
)
@click.option(
    "--name",
    envvar="PLEXODUS_NAME",
    default="plexodus-pairing",
    show_default=True,
    callback=kubernetes_name,
    help="Name of the Kubernetes Secret.",
)
def pair(
    *, config: str | None, state: str | None, address: str | None, output: str, name: str
) -> None:
    """Create a new token and print the pairing string, and nothing else.

    The old token stops working at once; a running agent needs no restart. The string is a secret.

    \b
    Examples:
      plexodus-agent pair --address 192.0.2.10:8443 > pairing
      plexodus-agent pair --output kubectl
      plexodus-agent pair --address plex-vm.example.org:8443 --output secret-yaml
    """
    settings = load_settings(config, {"state": state, "address": address})
    port = settings.listen_address[1]
    host, port = parse_address(settings.address) if settings.address else (own_address(), port)
    with storage_errors(settings.state):
        become_owner(settings.state)
        is_pinned = not settings.certificate  # else clients verify the certificate of a CA
        pairing = make_pairing(settings.state, host, port, is_pinned=is_pinned)
    show(OUTPUTS[output].format(pairing=pairing, name=name))


@cli.command()
@CONFIG
@STATE
@LIBRARY
@setting("listen", "HOST:PORT", "Address to listen at. Default: 0.0.0.0:8443.")
@setting("rate", "RATE", "Limit of the sending rate, such as 50MiB/s or 400Mbit/s.")
def serve(*, config: str | None, **given: str | None) -> None:
    """Serve the library over HTTPS until stopped. The agent only reads the library.

    SIGHUP reads the settings again. Changes of unit, listen and state need a restart.

    \b
    Example:
      plexodus-agent serve --state /var/lib/plexodus --listen 0.0.0.0:8443 \\
          --library /var/lib/plexmediaserver/Library
    """
    asyncio.run(daemon.serve(partial(load_settings, config, given)))


@cli.command()
@CONFIG
@STATE
@click.option("--follow", envvar="PLEXODUS_FOLLOW", is_flag=True, help="Wait for new lines.")
@click.option("--json", "as_json", envvar="PLEXODUS_JSON", is_flag=True, help="Print JSON lines.")
def log(*, config: str | None, state: str | None, follow: bool, as_json: bool) -> None:
    """Show the migration log: findings, passes, publications and failures.

    \b
    Examples:
      plexodus-agent log --follow
      plexodus-agent log --state ./state --json
    """
    folder = load_settings(config, {"state": state}).state
    story, offset = MigrationLog(folder), 0
    while True:
        with storage_errors(folder):
            piece, offset = story.read(offset, as_json=as_json)
        show(piece, newline=False)
        if not piece and not follow:
            return
        if not piece:
            time.sleep(_GLANCE)


@cli.command()
@CONFIG
@STATE
@JSON
@WATCH
def status(*, config: str | None, state: str | None, as_json: bool, watch: bool) -> None:
    """Show the state of the move, what Plex does, the lease, and what 'undo' would do.

    \b
    Examples:
      plexodus-agent status --json
      plexodus-agent status --watch
    """
    settings = load_settings(config, {"state": state})

    def screen() -> str:
        with storage_errors(settings.state):
            found = read_status(settings, make_cutover(settings))
        return msgspec.json.encode(found).decode() if as_json else status_screen(found)

    if watch:
        keep_showing(screen)
    show(screen())


@cli.command()
@CONFIG
@STATE
@click.option(
    "--unless-committed",
    envvar="PLEXODUS_UNLESS_COMMITTED",
    is_flag=True,
    help="Do not undo a complete move. The service uses this option when it ends.",
)
def undo(*, config: str | None, state: str | None, unless_committed: bool) -> None:
    """Undo the move and start Plex on this machine again, before or after the move is complete.

    Stop Plex in the cluster first: two servers with one identity confuse every client. Changes
    that Plex has made in the cluster stay there.

    \b
    Example:
      plexodus-agent undo --state /var/lib/plexodus
    """
    recorded = None
    try:
        settings = load_settings(config, {"state": state})
    except (ConfigurationError, StorageError) as error:
        if not unless_committed:
            raise
        settings = _default_settings(error, state or state_path_left())
        record = CutoverRecord(settings.state).load()
        recorded = recorded_service(record.starting, record.container)
    is_root = os.geteuid() == 0
    with storage_errors(settings.state):
        had_block = is_root and not unless_committed and lift_start_blocks()
        # Root must not run a command from the record: any user who may write there could set it.
        (become_owner if recorded else write_as_owner)(settings.state)
        why = "the agent has ended" if unless_committed else "asked for on the command line"
        control = make_cutover(settings, plex=recorded)
        standing = _lifted(control, why, committed=not unless_committed)
    if standing.phase == "undoing":
        raise CutoverRefused(
            f"Plex was not seen running within {_SETTLE_SECONDS:.0f} s",
            hint="Find out why Plex does not start. A running agent retries until Plex runs.",
        )
    if standing.phase == "committed":
        remark("The library has moved: Plex stays stopped here.")
        return
    if had_block:  # the record may have been purged since
        plex_service(settings).start()
    remark(f"Plex may run on this machine: {standing.why or 'there was no cutover'}.")


def _lifted(control: CutoverControl, why: str, *, committed: bool) -> CutoverStanding:
    """Undo, and return how things stand once Plex runs, or after a while.

    If the agent ends, nobody is there to try again. So a start that fails is repeated then, unless
    the machine shuts down: systemd would start nothing, and the agent starts Plex after the boot.
    """
    deadline = time.monotonic() + _SETTLE_SECONDS
    is_by_hand = committed
    while True:
        pause = _GLANCE
        try:
            standing = control.lift(why, committed=committed)
        except CutoverRefused:
            if is_by_hand or time.monotonic() > deadline or is_shutting_down():
                raise
            pause = _BETWEEN_STARTS
        else:
            is_over = standing.phase != "undoing" or time.monotonic() > deadline
            if is_over or (not is_by_hand and is_shutting_down()):
                return standing
            committed = False
        time.sleep(pause)


def _default_settings(error: PlexodusError, state: str | None) -> Settings:
    click.echo(f"The settings are ignored: {error}", err=True)
    return Settings(state=state) if state else Settings()


@cli.command(hidden=True)
@CONFIG
@STATE
def keep_stopped(*, config: str | None, state: str | None) -> None:
    """Prevent a Plex that has moved from starting; the package's removal runs this.

    The fence is removed with the package. A drop-in in /etc/systemd/system replaces it.

    \b
    Example:
      plexodus-agent keep-stopped --config /etc/plexodus/agent.toml
    """
    try:
        settings = load_settings(config, {"state": state})
    except (ConfigurationError, StorageError) as error:
        settings = _default_settings(error, state)
    with storage_errors("/etc/systemd/system"):
        paths = keep_moved_plex_stopped(settings)
    for path in paths:
        click.echo(f"The library of this Plex has moved. It stays stopped: see {path}", err=True)


@cli.command()
@CONFIG
@LIBRARY
@DATABASE_CHECK
@JSON
def preflight(
    *, config: str | None, library: str | None, database_check: str, as_json: bool
) -> None:
    """Check Plex and its library before a move. Nothing is stopped, nothing is written.

    Exits 12 if you must fix something first.

    \b
    Example:
      plexodus-agent preflight --library /var/lib/plexmediaserver/Library
    """
    settings = load_settings(config, {"library": library})
    source = open_library(find_library(settings))
    report = check_for_preflight(source, settings, DatabaseCheck(database_check))
    show(msgspec.json.encode(report) if as_json else page(report.checks))
    refuse_failures(report)


cli.add_command(plan)
