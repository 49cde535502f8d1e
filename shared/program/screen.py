"""A screen of text that is shown again whenever it has changed."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, NoReturn

import click

from shared.program.standard_streams import show

if TYPE_CHECKING:
    from collections.abc import Callable

WATCH = click.option(
    "--watch", envvar="PLEXODUS_WATCH", is_flag=True, help="Continue, and show what changes."
)
_TERMINAL_SECONDS = 1.0
_PLAIN_SECONDS = 10.0
"""Seconds between two screens. A file or a pipe gets fewer, because it keeps them all."""


def keep_showing(screen: Callable[[], str]) -> NoReturn:
    """Show what ``screen`` returns, again and again until a signal ends the program.

    A terminal is redrawn. Anything else gets each screen that differs from the one before, with an
    empty line between them.
    """
    is_terminal = sys.stdout.isatty()
    shown = ""
    while True:
        text = screen()
        if text != shown:
            if is_terminal:
                click.clear()
            elif shown:
                show("")
            show(text)
            shown = text
        time.sleep(_TERMINAL_SECONDS if is_terminal else _PLAIN_SECONDS)
