"""A verified library whose move was undone, or whose name was taken, before publication."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rig.cutover.cutovers import dies, moved, phase, unheard_commit
from rig.plex.commands import SERVER
from rig.programs import program

from shared.program.exit_codes import ExitCode

if TYPE_CHECKING:
    from rig.plex.commands import PlexCommands
    from rig.programs import Agent, Puller

pytestmark = pytest.mark.long

SETTINGS = {"lease_seconds": 600.0, "stop_seconds": 30}
"""A lease that no test waits for: Plex runs again because somebody has it started."""
BEFORE_RENAME, BEFORE_RECEIPT = "publish", "seal"


def undo(agent: Agent) -> None:
    """Undo the cutover as an administrator does."""
    done = program(
        "plexodus-agent", "undo", "--state", agent.state, "--config", agent.settings or ""
    )
    assert done.returncode == 0, done.stderr
    assert phase(agent) == "idle"


def watch(library: Path) -> None:
    """Write as a Plex in use on the VM does."""
    (library / SERVER / "Metadata" / "watched since").write_text("on the VM")


def foreign(target: Path) -> None:
    """Create a foreign library at the library's name."""
    (target / "Library").mkdir()
    (target / "Library" / "mark").write_text("not ours")


def is_left_alone(target: Path) -> bool:
    """Return whether that library is unchanged and has no receipt beside it."""
    found = [path.name for path in (target / "Library").rglob("*")]
    return found == ["mark"] and not (target / ".plexodus" / "receipt.json").exists()


def pull_with(puller: Puller, changes: str, *options: str) -> int:
    """Run a pull with ``changes`` to the puller's code, and return its exit code."""
    script = puller.target.with_name("changed.py")
    script.write_text(
        f"import subprocess\nfrom initpuller.__main__ import main\n{changes}\nmain()\n"
    )
    command = puller.command(*options)
    python = str(Path(command[0]).with_name("python"))
    ended = subprocess.run(
        [python, script, *command[1:]], check=False, capture_output=True, env=puller.environment()
    )
    assert ended.returncode in (ExitCode.OK, ExitCode.CONFLICT), ended.stderr[-3000:].decode()
    return ended.returncode


@pytest.mark.parametrize("step", [BEFORE_RENAME, BEFORE_RECEIPT])
def test_undone_after_the_commit_and_used_again(
    agent: Agent, puller: Puller, plex: PlexCommands, library: Path, step: str
) -> None:
    """The next pull transfers Plex's writes since the undo, and stops Plex for it again."""
    dies(puller, "initpuller.volume.publish.publish", step)
    assert phase(agent) == "committed"
    undo(agent)
    watch(library)

    done = puller.pull()

    assert done.code == ExitCode.OK, done.text
    moved(agent, puller, plex, library)
    assert (puller.target / "Library" / SERVER / "Metadata" / "watched since").exists()
    assert plex.story == ["start", "stop", "start", "stop"]


@pytest.mark.parametrize("step", [BEFORE_RENAME, BEFORE_RECEIPT])
def test_undone_and_vouched_for_all_the_same(
    agent: Agent, puller: Puller, plex: PlexCommands, step: str
) -> None:
    """``--no-cutover`` against the agent's record publishes nothing, and Plex keeps running."""
    dies(puller, "initpuller.volume.publish.publish", step)
    undo(agent)

    done = puller.pull("--no-cutover")

    assert done.code == ExitCode.CUTOVER, done.text
    assert "was undone" in done.reason()
    assert not (puller.target / "Library").exists()
    assert plex.is_running()


def test_undone_before_the_commit_was_heard_and_vouched_for(
    agent: Agent, puller: Puller, plex: PlexCommands, library: Path
) -> None:
    """After an undo while ``committing``, ``--no-cutover`` is refused and a cutover succeeds."""
    unheard_commit(puller)
    undo(agent)
    watch(library)

    refused = puller.pull("--no-cutover")

    assert refused.code == ExitCode.CUTOVER, refused.text
    assert not (puller.target / "Library").exists()
    done = puller.pull()
    assert done.code == ExitCode.OK, done.text
    moved(agent, puller, plex, library)


@pytest.mark.parametrize("step", ["rename_noreplace", BEFORE_RECEIPT])
def test_undone_after_a_library_was_set_aside(
    agent: Agent, puller: Puller, plex: PlexCommands, library: Path, step: str
) -> None:
    """A library that was set aside gets its name back, and is reported as a conflict again."""
    foreign(puller.target)
    aside = ("--on-existing", "set-aside")
    dies(puller, "initpuller.volume.publish.publish", step, *aside)
    assert list(puller.target.glob("Library.set-aside-*"))
    undo(agent)
    watch(library)

    refused = puller.pull()

    assert refused.code == ExitCode.CONFLICT, refused.text
    assert is_left_alone(puller.target)
    assert list(puller.target.glob("Library.set-aside-*")) == []
    assert plex.is_running()
    done = puller.pull(*aside)
    assert done.code == ExitCode.OK, done.text
    moved(agent, puller, plex, library)
    assert len(list(puller.target.glob("Library.set-aside-*"))) == 1


def test_puller_frozen_after_the_commit_while_the_move_is_undone(
    agent: Agent, puller: Puller, plex: PlexCommands, library: Path
) -> None:
    """A puller that slept through an undo asks again before it renames."""
    words = ["plexodus-agent", "undo", "--state", str(agent.state), "--config", str(agent.settings)]
    words[0] = str(Path(puller.command()[0]).with_name(words[0]))
    code = pull_with(
        puller,
        f"""
from initpuller.pull import cutover
from initpuller.agent_client.cutover import CutoverClient
real, clock, calls = CutoverClient.commit, cutover.boottime, []
async def commit(*args):
    answer = await real(*args)
    calls.append(1)
    if len(calls) == 1:
        subprocess.run({words!r}, check=True, env={{}})
        cutover.boottime = lambda: clock() + 60
    return answer
CutoverClient.commit = commit
""",
    )

    assert code == ExitCode.OK
    moved(agent, puller, plex, library)
    assert plex.story == ["start", "stop", "start", "stop"]


@pytest.mark.parametrize("where", ["bring", "commit"])
def test_name_is_taken_while_plex_is_stopped(
    agent: Agent, puller: Puller, plex: PlexCommands, library: Path, where: str
) -> None:
    """A name taken before the commit exits 14, and Plex runs again at once.

    As long as the name is taken, Plex is not stopped again. When it is free, the library moves.
    """
    made = f"import os; os.mkdir({str(puller.target / 'Library')!r})"
    made += f"; open({str(puller.target / 'Library' / 'mark')!r}, 'w').close()"
    step = "Cutover._named" if where == "bring" else "Passes.bring"
    module = "cutover" if where == "bring" else "passes"
    code = pull_with(
        puller,
        f"""
from initpuller.pull import {module}
owner, name = {module}.{step.partition(".")[0]}, {step.partition(".")[2]!r}
real = getattr(owner, name)
def taken(*args):
    {made}
    return real(*args)
setattr(owner, name, taken)
""",
        "--on-existing",
        "skip",
    )

    assert code == ExitCode.CONFLICT
    assert is_left_alone(puller.target)
    assert phase(agent) in {"undoing", "idle"}  # it watches Plex for some seconds
    assert plex.is_running()
    assert puller.pull("--on-existing", "skip").code == ExitCode.CONFLICT
    assert plex.story == ["start", "stop", "start"]
    shutil.rmtree(puller.target / "Library")
    done = puller.pull()
    assert done.code == ExitCode.OK, done.text
    moved(agent, puller, plex, library)


KILLED = {
    "transferring": ("initpuller.pull.passes", "Passes.bring"),
    "committing": ("initpuller.agent_client.cutover", "CutoverClient.commit"),
}


@pytest.mark.parametrize("option", ["skip", "fail"])
@pytest.mark.parametrize("state", KILLED)
def test_name_is_taken_after_a_puller_was_killed_while_plex_is_stopped(
    agent: Agent, puller: Puller, plex: PlexCommands, state: str, option: str
) -> None:
    """The next run exits 14, and Plex runs again before the lease expires."""
    dies(puller, *KILLED[state])
    assert phase(agent) == "stopped"
    foreign(puller.target)

    done = puller.pull("--on-existing", option)

    assert done.code == ExitCode.CONFLICT, done.text
    assert is_left_alone(puller.target)
    assert phase(agent) in {"undoing", "idle"}  # it watches Plex for some seconds
    assert plex.is_running()


def test_name_is_taken_after_an_unheard_commit(
    agent: Agent, puller: Puller, plex: PlexCommands, library: Path
) -> None:
    """A name taken after the commit exits 14, and once it is free the library is published."""
    unheard_commit(puller)
    foreign(puller.target)

    done = puller.pull("--on-existing", "skip")

    assert done.code == ExitCode.CONFLICT, done.text
    assert is_left_alone(puller.target)
    assert phase(agent) == "committed"
    assert not plex.is_running()
    (puller.target / "Library").rename(puller.target / "elsewhere")
    assert puller.pull().code == ExitCode.OK
    moved(agent, puller, plex, library)


def test_refused_pull_leaves_a_rehearsal_in_place(
    agent: Agent, puller: Puller, library: Path
) -> None:
    """A pull that either side refuses leaves the rehearsal usable."""
    assert puller.pull("--rehearse").code == ExitCode.OK
    receipt = puller.target / ".plexodus" / "receipt.json"
    before = receipt.read_bytes()
    (library / SERVER / "Preferences.xml").rename(library / "Preferences.xml")

    refused = puller.pull()

    assert refused.code == ExitCode.PREFLIGHT, refused.text
    assert receipt.read_bytes() == before
    assert (puller.target / "Library" / SERVER / "Preferences.xml").exists()
    assert json.loads(puller.run("status", "--json").stdout)["phase"] == "rehearsed"


def test_name_is_taken_before_a_vouched_pull_of_an_undone_move(
    agent: Agent, puller: Puller, plex: PlexCommands, library: Path
) -> None:
    """With ``--no-cutover`` nothing is published, and the other library stays where it is.

    It is set aside only when the move is published.
    """
    dies(puller, "initpuller.volume.publish.publish", BEFORE_RENAME)
    shutil.rmtree(puller.target / ".plexodus" / "staging")
    foreign(puller.target)
    undo(agent)
    aside = ("--on-existing", "set-aside")

    refused = replace(puller, cutover=False).pull(*aside)

    assert refused.code == ExitCode.CUTOVER, refused.text
    assert is_left_alone(puller.target)
    done = puller.pull(*aside)
    assert done.code == ExitCode.OK, done.text
    moved(agent, puller, plex, library)
    (mark,) = puller.target.glob("Library.set-aside-*/mark")
    assert mark.read_text() == "not ours"
