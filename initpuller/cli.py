"""``plexodus-puller``: the command line."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace

import click

from initpuller import migrate, standing
from initpuller.volume.decision import OnExisting
from initpuller.volume.ownership import choose_ownership
from shared import __version__
from shared.errors import ConfigurationError, Interrupted
from shared.pairing import Pairing, parse_pairing
from shared.plexlibrary import NEVER, REGENERABLE

PAIRING_VARIABLE = "PLEXODUS_PAIRING"
"""Holds the pairing string itself, for those who have no file of it."""
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
@click.option(
    "--pairing-file",
    envvar="PLEXODUS_PAIRING_FILE",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="File with the string that 'plexodus-agent pair' printed.",
)
@click.option(
    "--client-certificate",
    envvar="PLEXODUS_CLIENT_CERTIFICATE",
    metavar="FILE",
    default="",
    type=click.Path(dir_okay=False),
    help="Our own certificate (PEM), for an agent that lets in only those of its CA.",
)
@click.option(
    "--client-key",
    envvar="PLEXODUS_CLIENT_KEY",
    metavar="FILE",
    default="",
    type=click.Path(dir_okay=False),
    help="Its key (PEM), unless it is in the same file.",
)
@_TARGET
@click.option(
    "--owner",
    envvar="PLEXODUS_OWNER",
    metavar="UID:GID|keep",
    help="Whose everything shall be. Default: as in the source where we may, else our own.",
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
        pairing=replace(_pairing(pairing_file), certificate=client_certificate, key=client_key),
        target=target,
        ownership=choose_ownership(owner),
        exclude=[*NEVER, *(REGENERABLE if exclude_regenerable else ()), *exclude],
        jobs=jobs,
        on_existing=OnExisting(on_existing),
    )
    asyncio.run(_until_signalled(options))


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


def _pairing(path: str | None) -> Pairing:
    text = os.environ.get(PAIRING_VARIABLE)
    if path is None:
        if text is None:
            raise ConfigurationError(
                "no pairing", hint=f"Give --pairing-file, or the string in {PAIRING_VARIABLE}."
            )
        return parse_pairing(text)
    if text is not None:
        raise ConfigurationError(f"both --pairing-file and {PAIRING_VARIABLE} are given")
    try:
        with open(path, encoding="utf-8") as file:
            return parse_pairing(file.read())
    except (OSError, UnicodeError) as error:
        raise ConfigurationError(f"the pairing file cannot be read ({error})") from error


async def _until_signalled(options: migrate.PullOptions) -> None:
    """Run the pull; SIGTERM and SIGINT end it with its journal in order."""
    task = asyncio.create_task(migrate.pull(options))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        raise Interrupted("stopped by a signal", hint="The next run goes on from here.") from None
