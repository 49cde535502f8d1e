"""The option ``--version`` of both programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from shared import __version__
from shared.native import state
from shared.program import standard_streams

if TYPE_CHECKING:
    from collections.abc import Callable


def version_option(program: str) -> Callable[[Any], Any]:
    """Return the option that shows the version of ``program`` and whether it is accelerated."""

    def show(context: click.Context, _option: click.Parameter, wanted: bool) -> None:  # noqa: FBT001 (click passes it by position)
        if wanted and not context.resilient_parsing:
            standard_streams.show(f"{program}, version {__version__}\naccelerator: {state}")
            context.exit()

    return click.option(
        "--version",
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=show,
        help="Show the version and exit.",
    )
