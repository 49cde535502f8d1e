"""The state table of docs/states.md: one volume a row, made by real pulls that were interrupted."""

from __future__ import annotations

import re
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rig.cutover.deltas import racy_seconds
from rig.plex.commands import only_plex
from rig.programs import Agent, running
from rig.state_results import away, is_published, is_untouched
from rig.state_steps import (
    CUTOVER,
    changed,
    cut,
    cut_over,
    foreign,
    rehearsal,
    rehearsed,
    taken_back,
    undone,
    whole,
    without,
)
from rig.volume import fingerprint, grow_tiny_plex, pull, run_puller

from shared.program.exit_codes import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from collections.abc import Set as AbstractSet

TABLE = Path(__file__).parent.parent.parent / "docs" / "states.md"
COMMIT = "initpuller.volume.staging.staging.Staging.commit"
PUBLISH = "initpuller.volume.publish.publish.publish"
RENAME = "initpuller.volume.publish.publish.rename_noreplace"
SEAL = "initpuller.volume.publish.publish.seal"
LEFTOVERS = "initpuller.volume.publish.publish.remove_leftovers"
SKIP, FAIL, ASIDE = (("--on-existing", value) for value in ("skip", "fail", "set-aside"))
CUTTING = "initpuller.pull.cutover"
SCAN = "POST /v1/snapshots"
LOG = "POST /v1/log"


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """Start one agent with a tiny library for all rows."""
    place = tmp_path_factory.mktemp("states")
    agent = Agent(place / "state", grow_tiny_plex(place / "vm" / "Library"), place / "agent.log")
    agent.pair()
    time.sleep(racy_seconds(2))  # a scan trusts no file that changed in this second
    agent.settings = place / "agent.toml"
    agent.settings.write_text('stop_command = ["true"]\nstart_command = ["true"]\n')
    with running(agent):
        yield agent


@dataclass(frozen=True)
class Row:
    """The content of the volume, and the expected result of a run."""

    name: str
    makes: tuple[Callable[[Path, Agent], None], ...]
    options: tuple[tuple[str, ...], ...] = ((), FAIL, ASIDE)
    """Each is tried on a volume of its own."""
    code: ExitCode = ExitCode.OK
    asks: bool = False
    """The agent scans its library."""
    requests: AbstractSet[str] = frozenset()
    """All that the agent is asked where it does not scan."""
    is_away: bool = False
    """The agent cannot be reached."""
    publishes: bool = True
    """There is a whole library with its receipt in the end."""
    takes_back: bool = False
    """Nothing is published, and the volume only says any more that frames were brought."""
    aside: bool = False
    """What was there is found again under another name."""
    frames: range = field(default=range(1))
    """How many frames may be fetched."""
    says: str = ""
    cutover: bool = False
    """The run may stop Plex."""


RESUME = cut(COMMIT, 3)
VERIFIED, RENAMED = cut(PUBLISH), cut(SEAL)
UNCOMMITTED, STOPPED = (
    cut_over(f"{CUTTING}.Cutover.commit"),
    cut_over("initpuller.pull.passes.Passes.bring"),
)
MOVED, MOVED_RENAMED = cut_over(PUBLISH), cut_over(SEAL)
CHANGED = (
    (MOVED, without(".plexodus/staging"), foreign, undone),
    (MOVED_RENAMED, changed, undone),
)
STANDING = {"GET /v1/cutover"}
CHECK = STANDING | {"POST /v1/snapshots/ID/check"}
REHEARSE, READY = ("--rehearse",), ("--until", "ready")
WARNING = "A LIBRARY THAT IS NOT OURS"
TAKEN = "not ours has taken the library's name"
ALL = range(4, 5)
ROWS = (
    Row("done", (whole,), says="everything is there"),
    Row("leftovers", (cut(LEFTOVERS),), says="everything is there"),
    Row(
        "lost",
        (whole, without("Library")),
        code=ExitCode.CONFLICT,
        publishes=False,
        says="it is gone",
    ),
    Row("rehearsed", (rehearsed,), asks=True, frames=range(5)),
    Row("rehearsed", (rehearsed,), (REHEARSE,), says="everything is there"),
    Row(
        "rehearsed-refused",
        (rehearsed,),
        ((), ASIDE),
        code=ExitCode.UNREACHABLE,
        is_away=True,
        publishes=False,
    ),
    Row("taken-back", (rehearsed, taken_back), asks=True, frames=range(5)),
    Row("taken-back", (rehearsed, taken_back), (REHEARSE,), asks=True, frames=range(5)),
    Row("rehearsal-verified", (rehearsal(PUBLISH),), (REHEARSE,)),
    Row("rehearsal-verified", (rehearsal(SEAL),), (REHEARSE,), is_away=True),
    Row("rehearsal-verified", (rehearsal(PUBLISH),), ((),), asks=True, frames=range(5)),
    Row("empty", (), asks=True, frames=ALL),
    Row("resume", (RESUME,), asks=True, frames=range(1, 4)),
    Row("staging-lost", (RESUME, without(".plexodus/staging")), asks=True, frames=ALL),
    Row("state-lost", (RESUME, without(".plexodus/state.json")), asks=True, frames=ALL),
    Row("uncommitted", (UNCOMMITTED,), ((),), asks=True, frames=range(5), cutover=True),
    Row("uncommitted-vouched", (UNCOMMITTED,), ((),), is_away=True),
    Row(
        "uncommitted-vouched",
        (UNCOMMITTED,),
        ((),),
        ExitCode.CUTOVER,
        requests={"PUT /v1/cutover/ID/commit"},
        publishes=False,
        takes_back=True,
    ),
    Row("withdrawn", (UNCOMMITTED,), (REHEARSE,), asks=True, frames=range(5), cutover=True),
    Row("withdrawn", (MOVED, undone), (REHEARSE,), asks=True, frames=range(5), cutover=True),
    *(
        Row(
            "withdrawn",
            (made,),
            (REHEARSE, READY),
            ExitCode.CUTOVER,
            requests=STANDING,
            publishes=False,
            cutover=True,
        )
        for made in (MOVED, MOVED_RENAMED)
    ),
    Row(
        "uncommitted-aside",
        (UNCOMMITTED, foreign),
        (ASIDE,),
        asks=True,
        aside=True,
        frames=range(5),
        cutover=True,
    ),
    Row("verified", (MOVED,), requests=STANDING, cutover=True),
    Row("verified", (MOVED,), requests=STANDING),
    Row("undone", (MOVED, undone), asks=True, frames=range(5), cutover=True),
    Row("undone", (MOVED_RENAMED, undone), asks=True, frames=range(5), cutover=True),
    *(
        Row(
            "undone-vouched",
            (made, undone),
            ((), ASIDE),
            ExitCode.CUTOVER,
            requests=STANDING,
            publishes=False,
            takes_back=True,
            says="this move was undone",
        )
        for made in (MOVED, MOVED_RENAMED)
    ),
    *(
        Row(
            "undone-changed",
            made,
            ((), SKIP, FAIL, REHEARSE, READY),
            ExitCode.CONFLICT,
            requests=STANDING,
            publishes=False,
            cutover=True,
            says="is not what was verified any more",
        )
        for made in CHANGED
    ),
    Row(
        "undone-changed",
        CHANGED[0],
        ((), SKIP, FAIL),
        ExitCode.CONFLICT,
        requests=STANDING,
        publishes=False,
        says="is not what was verified any more",
    ),
    *(
        Row(
            "undone-changed-aside",
            made,
            (ASIDE,),
            asks=True,
            aside=True,
            frames=range(4, 9),
            cutover=True,
        )
        for made in CHANGED
    ),
    Row(
        "unheard",
        (MOVED,),
        ((), ASIDE, REHEARSE, READY),
        ExitCode.UNREACHABLE,
        is_away=True,
        publishes=False,
        cutover=True,
    ),
    Row("unheard-vouched", (MOVED,), is_away=True),
    Row("unnamed", (VERIFIED,), requests=CHECK),
    Row("unnamed-unheard", (VERIFIED,), ((),), ExitCode.UNREACHABLE, is_away=True, publishes=False),
    Row(
        "unnamed-cutover",
        (VERIFIED, undone),
        ((),),
        asks=True,
        frames=range(5),
        cutover=True,
    ),
    Row("renamed", (MOVED_RENAMED,), requests=STANDING, cutover=True),
    Row("renamed", (RENAMED,), requests=CHECK),
    Row("both-lost", (VERIFIED, without(".plexodus/staging")), asks=True, frames=ALL),
    Row("existing-skip", (foreign,), ((), SKIP), publishes=False, says=WARNING),
    Row("existing-skip", (RESUME, foreign), (SKIP,), publishes=False, says=WARNING),
    Row("existing-fail", (foreign,), (FAIL,), ExitCode.CONFLICT, publishes=False, says="not ours"),
    Row("existing-aside", (foreign,), (ASIDE,), asks=True, aside=True, frames=ALL),
    Row("existing-aside", (RESUME, foreign), (ASIDE,), asks=True, aside=True, frames=range(1, 4)),
    *(
        Row(
            "taken",
            (made, foreign),
            ((), SKIP, FAIL),
            ExitCode.CONFLICT,
            requests={"DELETE /v1/cutover/ID"},
            publishes=False,
            says=TAKEN,
            cutover=True,
        )
        for made in (STOPPED, UNCOMMITTED)
    ),
    *(
        Row(
            f"appeared-{options[0][1]}",
            (made, foreign),
            options,
            ExitCode.CONFLICT,
            publishes=False,
            says=TAKEN,
            cutover=True,
        )
        for options in ((SKIP, ()), (FAIL,))
        for made in (VERIFIED, MOVED)
        if options[0] is not FAIL or made is MOVED
    ),
    Row(
        "appeared-skip",
        (rehearsal(PUBLISH), foreign),
        ((*REHEARSE, *SKIP),),
        ExitCode.CONFLICT,
        publishes=False,
        says=TAKEN,
    ),
    Row("appeared-aside", (VERIFIED, foreign), (ASIDE,), requests=CHECK, aside=True),
    Row("displacing", (foreign, cut(PUBLISH, 1, *ASIDE)), requests=CHECK, aside=True),
    Row("displaced", (foreign, cut(RENAME, 1, *ASIDE)), requests=CHECK, aside=True),
)
CASES = [
    pytest.param(row, options, id=f"{row.name}-{number}-{options[-1] if options else 'default'}")
    for number, row in enumerate(ROWS)
    for options in row.options
]


@pytest.mark.parametrize(("row", "options"), CASES)
def test_a_run_does_what_its_row_says(
    tmp_path: Path, agent: Agent, row: Row, options: tuple[str, ...]
) -> None:
    """Exit code, requests, frames, publication and untouched content are those of the row."""
    target = tmp_path / "config"
    target.mkdir()
    undone(target, agent)  # a move of an earlier row would forbid another copy
    for make in row.makes:
        make(target, agent)
    before, requests, asked = fingerprint(target), agent.requests(), agent.frames_asked()

    with only_plex() if row.cutover else nullcontext(), away(agent, is_away=row.is_away):
        done = pull(target, agent, *options, **(CUTOVER if row.cutover else {}))

    new_requests = agent.requests()[len(requests) :]
    assert done.code == row.code, done.text
    assert row.says in done.text
    assert (SCAN in new_requests) is row.asks
    asked_for = {re.sub("[0-9a-f]{32,}", "ID", each) for each in new_requests} - {LOG}
    assert row.asks or asked_for == row.requests
    assert len(agent.frames_asked()) - len(asked) in row.frames
    if row.publishes:
        is_published(target, agent, done, is_rehearsal="--rehearse" in options)
    elif row.takes_back:
        assert not (target / "Library").exists()
        assert '"transferring"' in (target / ".plexodus" / "state.json").read_text()
    else:
        is_untouched(target, before)
    marks = [path.read_text() for path in target.glob("Library.set-aside-*/mark")]
    assert marks == (["not ours"] if row.aside else [])


def test_table_and_tests_have_the_same_rows() -> None:
    """Each row of the documented table has a test, and each test has a row."""
    table = TABLE.read_text().partition("## The state table")[2].partition("\n## ")[0]
    documented = re.findall(r"^\| ([a-z-]+) \| (?:yes|no)", table, re.MULTILINE)

    assert documented == list(dict.fromkeys(row.name for row in ROWS))


@pytest.mark.parametrize("record", ["receipt.json", "state.json"])
@pytest.mark.parametrize("damage", [b"", b"{", b'{"phase": "elsewhere"}', b"\0" * 512])
def test_a_damaged_record_stops_the_run(
    tmp_path: Path, agent: Agent, record: str, damage: bytes
) -> None:
    """A damaged record exits 15 with its name in pull and status, and nothing changes."""
    target = tmp_path / "config"
    target.mkdir()
    (whole if record == "receipt.json" else RESUME)(target, agent)
    path = target / ".plexodus" / record
    path.write_bytes(damage)
    before, requests = fingerprint(target), agent.requests()

    done, status = pull(target, agent, *ASIDE), run_puller("status", "--target", target)

    assert (done.code, status.code) == (ExitCode.STORAGE, ExitCode.STORAGE), done.text
    assert str(path) in done.reason()
    assert "cannot be read" in status.reason()
    assert agent.requests() == requests
    is_untouched(target, before)


def test_state_moved_away_begins_anew_with_another_library_of_that_name(
    tmp_path: Path, agent: Agent
) -> None:
    """The remedy for a damaged state works, although staging holds foreign content."""
    target = tmp_path / "config"
    target.mkdir()
    RESUME(target, agent)
    (target / ".plexodus" / "state.json").unlink()
    (target / ".plexodus" / "staging" / "Library" / "foreign").write_text("of another time")

    done = pull(target, agent)

    assert done.code == ExitCode.OK, done.text
    is_published(target, agent, done)
