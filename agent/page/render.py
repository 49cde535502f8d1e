"""The page as HTML, from the state of the move and one template."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING

import jinja2
from markupsafe import escape

from agent.page.timeline import Stage
from shared.checks import Outcome, duration, size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.host.check_reports import Side
    from agent.host.migration_log import MigrationEvent
    from agent.page.observer import Observation
    from agent.page.state import MoveState
    from agent.page.timeline import Step

_LOG_BYTES, _LONGEST_LINE = 18_000, 400
"""The last lines of the log are on the page, and each is cut. /v1/log has all of it."""
_LINE_MARKUP = 100
"""Bytes of markup and time of each line."""
_HEIGHT = 40
_SIDES: dict[Side, str] = {"source": "On the VM", "target": "On the volume"}
_STILL_TO_DO = {
    Outcome.FAILURE: "to fix",
    Outcome.WARNING: "to know",
    Outcome.PASS: "fine",
}


@dataclass(frozen=True)
class Viewer:
    """The difference between two viewers of one state."""

    csrf: str = ""
    error: str = ""
    """Why what the viewer has just asked for was not done."""


def sign_in_page(error: str = "") -> str:
    """Return the form that asks for the token."""
    return _template().render(move=None, error=error, has_form=True)


def trouble_page(error: str) -> str:
    """Return a page that only says what is wrong."""
    return _template().render(move=None, error=error, has_form=False)


def move_page(seen: Observation, viewer: Viewer) -> str:
    """Return the page that shows the move."""
    move = seen.move
    now = next((step for step in move.steps if step.stage is Stage.NOW), None)
    return _template().render(
        move=move,
        error=viewer.error,
        csrf=viewer.csrf,
        now=now,
        heading=_heading(move, now),
        peak=max(move.rates, default=0),
        plot=plot(move.rates),
        sides=[(title, move.checks.get(side, [])) for side, title in _SIDES.items()],
        outcomes=_STILL_TO_DO,
        log=last_lines(seen.log),
    )


def last_lines(log: Sequence[MigrationEvent]) -> list[tuple[str, str]]:
    """Return time and text of the last lines, the latest first, as far as the page has room."""
    found, room = [], _LOG_BYTES
    for event in reversed(log):
        text = (
            event.about if len(event.about) <= _LONGEST_LINE else event.about[:_LONGEST_LINE] + "…"
        )
        room -= len(escape(text).encode()) + _LINE_MARKUP
        if room < 0:
            break
        found.append((event.at, text))
    return found


def _heading(move: MoveState, now: Step | None) -> str:
    if now is not None:
        return now.title
    if move.cutover.phase == "idle":
        return "Nothing is being moved"
    return move.meaning[0].upper() + move.meaning[1:]


def plot(rates: Sequence[int]) -> str:
    """Return the points of a polyline as high as the largest of ``rates``, in SVG's notation."""
    peak = max(chain(rates, [1]))
    return " ".join(
        f"{number},{_HEIGHT - rate * _HEIGHT / peak:.1f}" for number, rate in enumerate(rates)
    )


def _local(at: str) -> str:
    """Return a time of the log as the VM's clock shows it."""
    return datetime.fromisoformat(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("agent.page"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"size": size, "duration": duration, "local": _local}
    return environment.get_template("page.html")
