"""The output of ``plexodus-agent status``."""

from __future__ import annotations

from agent.status import Status, status_screen
from shared.wire.protocol import CutoverStanding


def test_lease_and_what_undo_would_do() -> None:
    """While Plex is stopped, it shows the puller, the lease's end and how to undo."""
    standing = CutoverStanding(
        phase="stopped", id="a" * 32, puller="plex-0", since="2026-11-27T10:00:00+00:00",
        seconds=42.0, snapshot="", why="",
    )  # fmt: skip
    screen = status_screen(
        Status(standing, "Plex is stopped", "is stopped", "Serving", "start Plex", ["one"])
    )
    assert screen.splitlines() == [
        "cutover   stopped: Plex is stopped",
        "since     2026-11-27T10:00:00+00:00",
        "puller    plex-0",
        "lease     42 s left, unless it is renewed",
        "Plex      is stopped",
        "agent     Serving",
        "undo      would start Plex",
        "",
        "one",
    ]


def test_nothing_is_under_way() -> None:
    """After a cutover, it shows why it ended, no lease and nothing to undo."""
    standing = CutoverStanding(
        phase="idle", id="a" * 32, puller="plex-0", since="", seconds=0.0, snapshot="",
        why="the lease has expired",
    )  # fmt: skip
    lines = status_screen(Status(standing, "no cutover", "runs", "", "nothing", [])).splitlines()
    assert lines == [
        "cutover   idle: no cutover",
        "puller    plex-0",
        "ended     the lease has expired",
        "Plex      runs",
        "undo      nothing",
    ]
