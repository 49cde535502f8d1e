"""Options that several commands share, with what they accept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from initpuller.plex.version_gate import VersionPolicy
from shared.errors import ConfigurationError
from shared.plex.sqlite_check import DatabaseCheck

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


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


TARGET = click.option(
    "--target",
    envvar="PLEXODUS_TARGET",
    required=True,
    metavar="DIR",
    type=click.Path(file_okay=False),
    help="Folder where the volume is mounted. The library appears in it under its own name; a"
    " folder Plex Media Server appears in Library/Application Support.",
)

AS_JSON = click.option(
    "--json", "as_json", envvar="PLEXODUS_JSON", is_flag=True, help="Print JSON."
)

DATABASE_CHECK = click.option(
    "--database-check",
    envvar="PLEXODUS_DATABASE_CHECK",
    type=click.Choice([each.value for each in DatabaseCheck]),
    help="How much of Plex's databases is checked. quick does not compare indexes with their"
    " tables; skip leaves the check out. A full check can take hours on a database of 70 GB or"
    " more. Default: full; quick for a library that is already on the volume and not ours.",
)


def database_checks(chosen: str | None) -> tuple[DatabaseCheck, DatabaseCheck]:
    """Return the check for the source's databases, and the one for those already on the volume.

    Args:
        chosen: the value of :data:`DATABASE_CHECK`, if one was given.
    """
    if chosen is None:
        return DatabaseCheck.FULL, DatabaseCheck.QUICK
    return DatabaseCheck(chosen), DatabaseCheck(chosen)


PLEX_URL = click.option(
    "--plex-url",
    envvar="PLEXODUS_PLEX_URL",
    metavar="URL",
    default="http://127.0.0.1:32400",
    show_default=True,
    help="Address of the Plex that runs on this volume. In a pod, it is the default.",
)


def _mappings(*, hidden: bool) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option(
        "--map",
        "mappings",
        envvar="PLEXODUS_MAP",
        metavar="OLD=NEW",
        multiple=True,
        type=Globs(),
        hidden=hidden,
        help="Media path below OLD on the VM is below NEW here. Repeat it for several paths.",
    )


def _applies(*, hidden: bool) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option(
        "--apply-paths",
        "applies",
        envvar="PLEXODUS_APPLY_PATHS",
        is_flag=True,
        hidden=hidden,
        help="When Plex runs, change the folders of its library sections as --map says, like"
        " 'paths --apply'.",
    )


MAP = _mappings(hidden=False)
APPLY_PATHS = _applies(hidden=False)


def told_to_watch(command: Callable[..., None]) -> Callable[..., None]:
    """Add the hidden options ``mappings`` and ``applies`` to ``command``.

    They are for ``watch`` in the same pod. A sidecar that cannot start prevents Plex from starting,
    so ``pull`` checks them before Plex is stopped.
    """
    return _mappings(hidden=True)(_applies(hidden=True)(command))


def check_mappings(mappings: Iterable[str], *, applies: bool) -> None:
    """Check the values of :data:`MAP` and :data:`APPLY_PATHS`.

    Raises:
        ConfigurationError: a mapping is invalid, or ``applies`` is set without one.
    """
    from initpuller.plex.paths import parse_mapping

    parsed = [parse_mapping(each) for each in mappings]
    if applies and not parsed:
        raise ConfigurationError("--apply-paths needs --map", hint="Add --map OLD=NEW.")


def version_gated(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options ``plex_version`` and ``version_policy`` to ``command``."""
    version = click.option(
        "--plex-version",
        envvar="PLEXODUS_PLEX_VERSION",
        metavar="VERSION",
        default="",
        help="Version of the Plex that will run in the pod: the tag of its image. Default: the tag"
        " in the pod's own spec, if the service account may read it.",
    )
    policy = click.option(
        "--version-policy",
        envvar="PLEXODUS_VERSION_POLICY",
        type=click.Choice([each.value for each in VersionPolicy]),
        default=VersionPolicy.REFUSE.value,
        show_default=True,
        help="What happens if the pod's Plex is older than the source's.",
    )
    return version(policy(command))
