"""Options that several commands of ``plexodus-agent`` have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from agent.secret_formats import KUBERNETES_NAME
from agent.settings import DEFAULT_FILE
from shared.plex.sqlite_check import DatabaseCheck

if TYPE_CHECKING:
    from collections.abc import Callable

CONFIG = click.option(
    "--config",
    envvar="PLEXODUS_CONFIG",
    metavar="FILE",
    # click does not examine the file: a refusal would also end 'undo --unless-committed'.
    type=click.Path(readable=False),
    help=f"File with the settings. Default: {DEFAULT_FILE}, if it exists.",
)


def setting(name: str, metavar: str, text: str) -> Callable[[Any], Any]:
    """Return an option that overrides the setting of the same name."""
    variable = f"PLEXODUS_{name.upper()}"
    return click.option(f"--{name}", envvar=variable, metavar=metavar, help=text)


LIBRARY = setting(
    "library",
    "DIR",
    "Folder to move: Library, Plex Media Server, or any other. Its last name stays. Default: the"
    " folder that Plex uses.",
)
STATE = setting("state", "DIR", "Folder for certificate, token hash and snapshots.")
DATABASE_CHECK = click.option(
    "--database-check",
    envvar="PLEXODUS_DATABASE_CHECK",
    type=click.Choice([each.value for each in DatabaseCheck]),
    default=DatabaseCheck.FULL.value,
    show_default=True,
    help="How much of Plex's databases is checked. quick does not compare indexes with their"
    " tables; skip leaves the check out.",
)
JSON = click.option("--json", "as_json", envvar="PLEXODUS_JSON", is_flag=True, help="Print JSON.")


def kubernetes_name(_context: click.Context, _option: click.Parameter, value: str) -> str:
    """Check a name that Kubernetes has to accept; a callback of click."""
    if not KUBERNETES_NAME.fullmatch(value):
        raise click.BadParameter("a Kubernetes name has only lower-case letters, digits, - and .")
    return value
