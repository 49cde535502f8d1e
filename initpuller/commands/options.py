"""Options that several commands share, with what they accept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import click

from initpuller.plex.version_gate import VersionPolicy
from shared.errors import ConfigurationError
from shared.plex.sqlite_check import DatabaseCheck

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Command: TypeAlias = Callable[..., None]
    Decorator: TypeAlias = Callable[[Command], Command]


def option(*names: str, **attributes: Any) -> Decorator:  # noqa: ANN401 - as click has it
    """Return an option that can be set in the environment too, ``--target`` as PLEXODUS_TARGET.

    The help shows its default if that is not empty. The rest is as for ``click.option``.
    """
    variable = f"PLEXODUS_{names[0].strip('-').replace('-', '_').upper()}"
    has_default = bool(attributes.get("default"))
    return click.option(*names, envvar=variable, show_default=has_default, **attributes)


class Globs(click.ParamType[str]):
    """Patterns. In the environment: one on each line, because names may contain blanks."""

    name = "glob"
    envvar_list_splitter = "\n"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return ``value``; fail if it is not UTF-8, because the request to the agent is JSON."""
        try:
            value.encode()
        except UnicodeError:
            self.fail("a pattern must be UTF-8; match other bytes with ? or *", param, ctx)
        return value


TARGET = option(
    "--target",
    required=True,
    metavar="DIR",
    type=click.Path(file_okay=False),
    help="Folder where the volume is mounted. The library appears in it under its own name; a"
    " folder Plex Media Server appears in Library/Application Support.",
)

AS_JSON = option("--json", "as_json", is_flag=True, help="Print JSON.")

DATABASE_CHECK = option(
    "--database-check",
    type=click.Choice([each.value for each in DatabaseCheck]),
    help="How much of Plex's databases is checked. quick does not compare indexes with their"
    " tables; skip leaves the check out. A full check can take hours on a database of 70 GB or"
    " more. Default: full; quick for a library that is already on the volume and not ours.",
)


def database_checks(chosen: str | None) -> tuple[DatabaseCheck, DatabaseCheck]:
    """Return the check for the source's databases, and the one for those already on the volume."""
    if chosen is None:
        return DatabaseCheck.FULL, DatabaseCheck.QUICK
    return DatabaseCheck(chosen), DatabaseCheck(chosen)


PLEX_URL = option(
    "--plex-url",
    metavar="URL",
    default="http://127.0.0.1:32400",
    help="Address of the Plex that runs on this volume. In a pod, it is the default.",
)


def map_option(*, hidden: bool = False) -> Decorator:
    """Return the option ``mappings``."""
    return option(
        "--map",
        "mappings",
        metavar="OLD=NEW",
        multiple=True,
        type=Globs(),
        hidden=hidden,
        help="Media path below OLD on the VM is below NEW here. Repeat it for several paths.",
    )


def apply_paths_option(*, hidden: bool = False) -> Decorator:
    """Return the option ``applies``."""
    return option(
        "--apply-paths",
        "applies",
        is_flag=True,
        hidden=hidden,
        help="When Plex runs, change the folders of its library sections as --map says, like"
        " 'paths --apply'.",
    )


def check_mappings(mappings: Iterable[str], *, applies: bool) -> None:
    """Raise ConfigurationError if a mapping is invalid, or if ``applies`` is set without one."""
    from initpuller.plex.paths import parse_mapping

    parsed = [parse_mapping(each) for each in mappings]
    if applies and not parsed:
        raise ConfigurationError("--apply-paths needs --map", hint="Add --map OLD=NEW.")


def version_gated(command: Command) -> Command:
    """Add the options ``plex_version`` and ``version_policy`` to ``command``."""
    version = option(
        "--plex-version",
        metavar="VERSION",
        default="",
        help="Version of the Plex that will run in the pod: the tag of its image. Default: the tag"
        " in the pod's own spec, if the service account may read it.",
    )
    policy = option(
        "--version-policy",
        type=click.Choice([each.value for each in VersionPolicy]),
        default=VersionPolicy.REFUSE.value,
        help="What happens if the pod's Plex is older than the source's.",
    )
    return version(policy(command))
