"""``plexodus-puller``: the command line."""

from __future__ import annotations

import asyncio
import os
import signal

import click
import msgspec

from initpuller import migrate, standing
from initpuller.pairingoptions import chosen_pairing, paired
from initpuller.plex.paths import as_text, look_at_sections, parse_mapping
from initpuller.preflight import PreflightOptions, VersionPolicy
from initpuller.preflight import preflight as look_at_both
from initpuller.volume.decision import OnExisting
from initpuller.volume.layout import USUAL_NAME
from initpuller.volume.ownership import choose_ownership, plex_owner
from shared import __version__
from shared.checks import page
from shared.errors import ConfigurationError, Interrupted, PreflightRefused
from shared.plexlibrary import NEVER, REGENERABLE

_MAX_JOBS = 16


class _Globs(click.ParamType[str]):
    """Patterns; in the environment one a line, since names have blanks."""

    name = "glob"
    envvar_list_splitter = "\n"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Refuse what JSON cannot carry; ``?`` and ``*`` match the bytes of other names."""
        try:
            value.encode()
        except UnicodeError:
            self.fail("a pattern must be UTF-8; match other bytes with ? or *", param, ctx)
        return value


_TARGET = click.option(
    "--target",
    envvar="PLEXODUS_TARGET",
    required=True,
    metavar="DIR",
    type=click.Path(file_okay=False),
    help="The volume; the library appears in it under its own name.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="plexodus-puller")
def cli() -> None:
    """Bring a Plex Media Server library from its agent onto a volume.

    \b
    Examples:
      plexodus-puller pull   --pairing-file /etc/plexodus/pairing --target /config
      plexodus-puller status --target /config
      plexodus-puller verify --target /config

    Every option can be given as an environment variable: --target as PLEXODUS_TARGET. The pairing
    string itself can be given as PLEXODUS_PAIRING. Exit codes: docs/exit-codes.md.
    """


@cli.command()
@paired
@_TARGET
@click.option(
    "--owner",
    envvar="PLEXODUS_OWNER",
    metavar="UID:GID|keep",
    help="Whose everything shall be. Default: PLEX_UID:PLEX_GID where these are set, as for Plex'"
    " image; else as in the source where we may, else our own.",
)
@click.option(
    "--exclude",
    envvar="PLEXODUS_EXCLUDE",
    metavar="GLOB",
    multiple=True,
    type=_Globs(),
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
    "--no-cutover",
    envvar="PLEXODUS_NO_CUTOVER",
    is_flag=True,
    expose_value=False,
    help="Plex is stopped already, or there is none. This version knows no other way.",
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
) -> None:
    """Bring the library, verified, in one rename; go on where an earlier run ended.

    Stop Plex on the VM first. Exits 0 when the library is there, and at once when it was there.

    \b
    Examples:
      plexodus-puller pull --pairing-file pairing --target /config --owner 1000:1000
      plexodus-puller pull --pairing-file pairing --target /config --exclude Cache \\
          --exclude 'Crash Reports'
    """
    options = migrate.PullOptions(
        pairing=chosen_pairing(pairing_file, client_certificate, client_key),
        target=target,
        ownership=choose_ownership(owner or plex_owner(os.environ)),
        exclude=[*NEVER, *(REGENERABLE if exclude_regenerable else ()), *exclude],
        jobs=jobs,
        on_existing=OnExisting(on_existing),
    )
    asyncio.run(_until_signalled(options))


@cli.command()
@paired
@_TARGET
@click.option(
    "--plex-version",
    envvar="PLEXODUS_PLEX_VERSION",
    metavar="VERSION",
    default="",
    help="Of the Plex that will run in the pod: the tag of its image.",
)
@click.option(
    "--version-policy",
    envvar="PLEXODUS_VERSION_POLICY",
    type=click.Choice([each.value for each in VersionPolicy]),
    default=VersionPolicy.REFUSE.value,
    show_default=True,
    help="What a pod with an older Plex than the source's means.",
)
@click.option("--json", "as_json", envvar="PLEXODUS_JSON", is_flag=True, help="As JSON.")
def preflight(
    *,
    pairing_file: str | None,
    client_certificate: str,
    client_key: str,
    target: str,
    plex_version: str,
    version_policy: str,
    as_json: bool,
) -> None:
    """Look at both sides as before a move. Nothing is stopped, nothing is written.

    Exits 12 if something must be mended first.

    \b
    Example:
      plexodus-puller preflight --pairing-file pairing --target /config \\
          --plex-version 1.40.1.8227-c0dd5a73e
    """
    options = PreflightOptions(
        pairing=chosen_pairing(pairing_file, client_certificate, client_key),
        target=target,
        plex_version=plex_version,
        policy=VersionPolicy(version_policy),
    )
    try:
        found = look_at_both(options)
    except OSError as error:
        raise ConfigurationError(
            f"the target cannot be looked at ({error.strerror})", path=target
        ) from error
    if as_json:
        click.echo(msgspec.json.encode(found))
    else:
        click.echo(f"On the VM\n\n{page(found.source)}\n\nHere\n\n{page(found.target)}")
    if found.failed:
        raise PreflightRefused(f"not fit to be moved: {', '.join(found.failed)}", path=target)


@cli.command()
@_TARGET
@click.option(
    "--map",
    "mappings",
    envvar="PLEXODUS_MAP",
    metavar="OLD=NEW",
    multiple=True,
    type=_Globs(),
    help="Media that was below OLD on the VM is below NEW here; can be repeated.",
)
@click.option("--json", "as_json", envvar="PLEXODUS_JSON", is_flag=True, help="As JSON.")
def paths(*, target: str, mappings: tuple[str, ...], as_json: bool) -> None:
    """Tell where Plex' libraries look for media, whether it is here, and what to change.

    Run it where the media is mounted as in Plex' container. The database is only read. Exits 12 if
    a media file is not where it is looked for.

    \b
    Examples:
      plexodus-puller paths --target /config
      plexodus-puller paths --target /config --map /mnt/nas-plex=/media/library
    """
    library = os.path.join(target, standing.read_standing(target).library or USUAL_NAME)
    sections = look_at_sections(library, [parse_mapping(each) for each in mappings])
    click.echo(msgspec.json.encode(sections) if as_json else as_text(sections))
    incomplete = [section.name for section in sections if section.missing]
    if incomplete:
        raise PreflightRefused(f"media is missing of: {', '.join(incomplete)}", path=library)


@cli.command()
@_TARGET
@click.option("--json", "as_json", envvar="PLEXODUS_JSON", is_flag=True, help="As JSON.")
def status(*, target: str, as_json: bool) -> None:
    """Tell where the pull onto this volume stands.

    \b
    Example:
      plexodus-puller status --target /config --json
    """
    found = standing.read_standing(target)
    click.echo(standing.as_json(found) if as_json else standing.as_text(found))


@cli.command()
@_TARGET
def verify(*, target: str) -> None:
    """Read every file on the volume again and compare it with the receipt's digests.

    What Plex itself has changed since is reported too. The same by hand:
    cd TARGET && sha256sum -c .plexodus/SHA256SUMS

    \b
    Example:
      plexodus-puller verify --target /config
    """
    receipt = standing.verify(target)
    click.echo(f"{receipt.files} files are as they were moved ({receipt.verified})")


async def _until_signalled(options: migrate.PullOptions) -> None:
    """Run the pull; SIGTERM and SIGINT end it with its journal in order."""
    task = asyncio.create_task(migrate.pull(options))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        raise Interrupted("stopped by a signal", hint="The next run goes on from here.") from None
