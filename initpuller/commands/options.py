"""Options that several commands share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from initpuller.plex.version_gate import VersionPolicy
from shared.errors import ConfigurationError
from shared.plex.sqlite_check import DatabaseCheck

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Globs(click.ParamType[str]):
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


TARGET = click.option(
    "--target",
    envvar="PLEXODUS_TARGET",
    required=True,
    metavar="DIR",
    type=click.Path(file_okay=False),
    help="The volume. The library appears in it under its own name; a folder Plex Media Server"
    " appears in Library/Application Support.",
)

AS_JSON = click.option("--json", "as_json", envvar="PLEXODUS_JSON", is_flag=True, help="As JSON.")

DATABASE_CHECK = click.option(
    "--database-check",
    envvar="PLEXODUS_DATABASE_CHECK",
    type=click.Choice([each.value for each in DatabaseCheck]),
    help="How much of Plex's databases to check. quick does not compare indexes with their tables;"
    " skip leaves the check out. A full check can take hours on a database of 70 GB or more."
    " Default: full; quick for a library that is already on the volume and not ours.",
)


def database_checks(chosen: str | None) -> tuple[DatabaseCheck, DatabaseCheck]:
    """Return how much is checked of the source's databases, and of those already on the volume.

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
    help="Where the Plex listens that runs on this volume: in a pod, at the same address.",
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
        help="Media that was below OLD on the VM is below NEW here; can be repeated.",
    )


def _applies(*, hidden: bool) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option(
        "--apply-paths",
        "applies",
        envvar="PLEXODUS_APPLY_PATHS",
        is_flag=True,
        hidden=hidden,
        help="Once Plex runs, have its libraries look where --map says: as 'paths --apply' does.",
    )


MAP = _mappings(hidden=False)
APPLY_PATHS = _applies(hidden=False)


def told_to_watch(command: Callable[..., None]) -> Callable[..., None]:
    """Give ``command`` what :func:`check_mappings` takes, which ``watch`` beside it will be told.

    A sidecar that cannot start keeps Plex from starting: it is to be said before Plex is stopped.
    """
    return _mappings(hidden=True)(_applies(hidden=True)(command))


def check_mappings(mappings: Iterable[str], *, applies: bool) -> None:
    """Refuse what :data:`MAP` and :data:`APPLY_PATHS` cannot mean.

    Raises:
        ConfigurationError: a mapping is none, or there is none to be applied.
    """
    from initpuller.plex.paths import parse_mapping

    parsed = [parse_mapping(each) for each in mappings]
    if applies and not parsed:
        raise ConfigurationError("--apply-paths needs --map", hint="Say what was where.")


def version_gated(command: Callable[..., None]) -> Callable[..., None]:
    """Give ``command`` the options ``plex_version`` and ``version_policy``."""
    version = click.option(
        "--plex-version",
        envvar="PLEXODUS_PLEX_VERSION",
        metavar="VERSION",
        default="",
        help="Of the Plex that will run in the pod: the tag of its image. Default: what the pod's"
        " own spec says, where the service account may read it.",
    )
    policy = click.option(
        "--version-policy",
        envvar="PLEXODUS_VERSION_POLICY",
        type=click.Choice([each.value for each in VersionPolicy]),
        default=VersionPolicy.REFUSE.value,
        show_default=True,
        help="What a pod with an older Plex than the source's means.",
    )
    return version(policy(command))
