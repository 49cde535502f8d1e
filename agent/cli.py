"""``plexodus-agent``: the command line."""

from __future__ import annotations

import asyncio

import click

from agent.app import serve as serve_library
from agent.endpoints.credentials import make_pairing
from shared import __version__
from shared.errors import storage_error
from shared.pairing import parse_address

_STATE = click.option(
    "--state",
    envvar="PLEXODUS_STATE",
    required=True,
    metavar="DIR",
    type=click.Path(file_okay=False),
    help="Where the agent keeps certificate, token hash and snapshots.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="plexodus-agent")
def cli() -> None:
    """Serve a Plex Media Server library to the plexodus puller.

    \b
    Examples:
      plexodus-agent pair  --state /var/lib/plexodus --address 192.0.2.10:8443
      plexodus-agent serve --state /var/lib/plexodus --listen 0.0.0.0:8443 \\
          --library /var/lib/plexmediaserver/Library

    Every option can be given as an environment variable: --state as PLEXODUS_STATE.
    Exit codes: docs/exit-codes.md.
    """


@cli.command()
@_STATE
@click.option(
    "--address",
    envvar="PLEXODUS_ADDRESS",
    required=True,
    metavar="HOST:PORT",
    help="Where the puller will find this agent.",
)
def pair(state: str, address: str) -> None:
    """Make a new token and print the pairing string, and nothing else.

    The old token stops working at once; a running agent needs no restart. The string is a secret.

    \b
    Example:
      plexodus-agent pair --state /var/lib/plexodus --address 192.0.2.10:8443 > pairing
    """
    host, port = parse_address(address)
    try:
        pairing = make_pairing(state, host, port)
    except OSError as error:
        raise storage_error(error, state) from error
    click.echo(str(pairing))


@cli.command()
@_STATE
@click.option(
    "--library",
    envvar="PLEXODUS_LIBRARY",
    required=True,
    metavar="DIR",
    type=click.Path(file_okay=False),
    help="The library folder; it arrives under its last name.",
)
@click.option(
    "--listen",
    envvar="PLEXODUS_LISTEN",
    required=True,
    metavar="HOST:PORT",
    help="Where to listen, for example 0.0.0.0:8443.",
)
def serve(state: str, library: str, listen: str) -> None:
    """Serve the library over HTTPS until stopped. The library is only ever read.

    \b
    Example:
      plexodus-agent serve --state /var/lib/plexodus --listen 0.0.0.0:8443 \\
          --library /var/lib/plexmediaserver/Library
    """
    host, port = parse_address(listen)
    asyncio.run(serve_library(state, library, host, port))
