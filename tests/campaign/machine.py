"""Runs one story against the real programs, and has the oracle judge it."""

from __future__ import annotations

import random
import signal
import time
import traceback
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from campaign.faults.registry import BY_NAME
from campaign.moments import Progress
from campaign.oracle import library_damage, same_tree, server_faults
from campaign.site import Site
from campaign.story import Act, Mode, Story, When
from campaign.undos import Undos
from campaign.verdicts import FailedRun, may_change
from campaign.vm import LEASE
from campaign.volume import Kind

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from campaign.faults import Evidence

_EVERY = 0.002
_FIRST_RATE = 6e6
"""Bytes per second of a transfer that is interrupted for long."""
_RUN_SECONDS = 120.0
"""Time for one run: its retries of an agent that is away take half a minute."""
_SERVER_SECONDS = LEASE + 30
"""Time until Plex runs again after everything was repaired."""
_LAST_TRIES = 5
"""Pulls after the last fault, one of which has to succeed."""
_PERMANENT = (12, 13, 14, 15, 17)
"""Exit codes after which an administrator adds ``--retry-failed``."""


@dataclass(frozen=True)
class Step:
    """A command that is repeated until it succeeds."""

    options: tuple[str, ...]
    leaves: Kind | None
    """What has the library's name then; None if that is as before."""


@dataclass
class Outcome:
    """The result of a story."""

    seed: int
    name: str
    mode: str
    happened: list[str] = field(default_factory=list)
    """The faults that took place."""
    missed: list[str] = field(default_factory=list)
    """The faults whose moment never came, or that found nothing to break."""
    codes: list[int] = field(default_factory=list)
    """Exit codes of all pulls, in order."""
    undecided: int = 0
    """Number of pulls that failed between commit and publication, so that no server ran."""
    frames: int = 0
    changed_blocks: int = 0
    """Number of blocks of which only changed pieces were requested."""
    seconds: float = 0.0
    violations: list[str] = field(default_factory=list)
    failure: str = ""
    """What the campaign itself failed with; empty if the story was judged."""
    timeline: list[str] = field(default_factory=list)

    def plain(self) -> dict[str, Any]:
        """Return the result for JSON."""
        return asdict(self)


def run_story(story: Story, folder: Path, made: Path, shim: Path | None) -> Outcome:
    """Run a story in ``folder``, and return what came of it.

    Args:
        story: the story; faults that need the shim are left out without one.
        folder: a folder on a disk, with the library of the VM alone.
        made: the library as it was made.
        shim: the compiled shim, if there is one.
    """
    faults = [BY_NAME[act.fault] for act in story.acts]
    is_later = story.mode is Mode.RESUMED and story.pause.days > 0
    needs_shim = is_later or any(fault.needs_shim for fault in faults)
    sides = {fault.loses_power for fault in faults if fault.loses_power is not None}
    outcome = Outcome(story.seed, story.name, story.mode.value)
    began = time.monotonic()
    site = Site(story, folder, made, shim if needs_shim else None, sides)
    try:
        with site:
            _Machine(site, story, outcome).run()
    except Exception:  # noqa: BLE001 - the next story can still run
        site.fail(f"the campaign itself failed: {traceback.format_exc()}")
    outcome.frames = site.vm.frames()
    outcome.changed_blocks = site.vm.changed_blocks()
    outcome.seconds = time.monotonic() - began
    outcome.violations, outcome.timeline = site.violations, site.timeline
    outcome.failure = site.failure
    return outcome


class _Machine:
    def __init__(self, site: Site, story: Story, outcome: Outcome) -> None:
        self._site, self._story, self._outcome = site, story, outcome
        self._acts = list(story.acts)
        self._progress = Progress(site)
        self._evidence: list[tuple[str, bool | Evidence]] = []
        self._undos = Undos(site.vm, _SERVER_SECONDS)

    def run(self) -> None:
        """Run every step, then the faults that come after the move, and judge the end."""
        site = self._site
        if self._story.mode is Mode.RESUMED:
            self._interrupt_for_long()
        if not all(self._has_succeeded(step) for step in _steps(self._story.mode)):
            site.violate("nothing is published, although everything was repaired")
        else:
            self._after_move()
        self._repair()
        self._judge_end()
        self._count()

    def _count(self) -> None:
        """Say which faults took place."""
        outcome = self._outcome
        outcome.missed = [act.fault for act in self._acts]
        for fault, evidence in self._evidence:
            has_happened = evidence if isinstance(evidence, bool) else evidence()
            (outcome.happened if has_happened else outcome.missed).append(fault)

    def _interrupt_for_long(self) -> None:
        """Kill puller and agent in the first transfer, while Plex writes more and more."""
        site = self._site
        site.network.rate = _FIRST_RATE
        site.begin_pull(())
        deadline = time.monotonic() + 10
        while site.volume.journal_lines() < self._story.pause.lines:
            if time.monotonic() > deadline:
                break
            time.sleep(_EVERY)
        site.signal_puller(signal.SIGKILL)
        self._outcome.codes.append(site.finished().code)
        site.check_agent()
        site.vm.kill_agent()
        time.sleep(0.7)
        for shim in (site.vm.shim, site.puller_shim):
            if shim is not None:
                site.note(f"{self._story.pause.days} days later")
                shim.shift_clock(self._story.pause.days * 86_400)
        if self._story.pause.loses_snapshots:
            site.note("the agent's snapshots are gone")
            site.vm.drop_snapshots()
        site.vm.start_agent()
        site.network.rate = self._story.rate

    def _has_succeeded(self, step: Step) -> bool:
        """Repeat a command with the story's faults, then without; return whether it succeeded."""
        site = self._site
        for _ in range(2 * len(self._story.acts) + 2):
            if not self._acts:
                break
            code = self._pull(step)
            if code == 0:
                return True
            if site.is_repaired and site.vm.is_up and code > 0:
                self._wait_for_server()
        for _ in range(_LAST_TRIES):
            self._repair()
            self._wait_for_server()
            if self._pull(step) == 0:
                return True
        return False

    def _pull(self, step: Step) -> int:
        """Pull once, with the faults whose moments come meanwhile, and judge the result."""
        site = self._site
        if self._story.mode is Mode.STOPPED:
            site.vm.plex.stop()
        before = site.volume.kind()
        has_failed = any(code in _PERMANENT for code in self._outcome.codes)
        retry = ("--retry-failed",) if has_failed else ()
        jobs = ("--jobs", str(self._story.jobs))
        process = site.begin_pull((*step.options, *retry, *jobs))
        self._progress.restart()
        self._accompany(process)
        ended = site.finished()
        self._undos.pull_has_ended()
        self._outcome.codes.append(ended.code)
        self._judge(step, before, ended.code)
        return ended.code

    def _accompany(self, process: subprocess.Popen[bytes]) -> None:
        """Let the faults happen until the pull ends."""
        site, deadline = self._site, time.monotonic() + _RUN_SECONDS
        while process.poll() is None:
            site.repair_due()
            if self._acts and self._progress.has_come(self._acts[0].moment):
                self._strike(self._acts.pop(0))
                self._progress.restart()
            if time.monotonic() > deadline:
                site.violate(f"a pull did not end within {_RUN_SECONDS:.0f} s")
                site.signal_puller(signal.SIGKILL)
                process.wait()
            time.sleep(_EVERY)

    def _strike(self, act: Act) -> None:
        fault = BY_NAME[act.fault]
        self._site.note(f"{act.fault} ({act.moment})")
        self._evidence.append((act.fault, fault.strike(self._site, random.Random(act.seed))))

    def _after_move(self) -> None:
        """Let those of the last faults happen that make sense after the move."""
        for act in tuple(self._acts):
            timed = act.moment.when in (When.START, When.PUBLISHED, When.FENCED)
            if timed and BY_NAME[act.fault].after_move:
                self._acts.remove(act)
                time.sleep(act.moment.milliseconds / 1000)
                self._strike(act)
                self._site.repair_due()

    def _repair(self) -> None:
        """Repair everything, and wait for the commands of people."""
        site = self._site
        site.repair_due(everything=True)
        site.network.recover()
        site.volume.empty()
        for shim in (site.vm.shim, site.puller_shim):
            if shim is not None:
                shim.succeed()
        if not site.vm.is_up:
            site.vm.start_agent()
        site.vm.wait_for_undos()
        for fault in self._undos.faults():
            site.violate(fault)

    def _wait_for_server(self) -> None:
        """Wait until Plex runs on the VM, unless it is stopped for good, or by a person."""
        site, deadline = self._site, time.monotonic() + _SERVER_SECONDS
        if self._story.mode is Mode.STOPPED:
            return
        while not site.vm.plex.processes() and not site.vm.is_committed():
            if time.monotonic() > deadline:
                site.violate(f"no server after {_SERVER_SECONDS:.0f} s: {site.vm.record()}")
                return
            time.sleep(_EVERY)

    def _judge(self, step: Step, before: Kind, code: int) -> None:
        """Judge what is published after a pull."""
        site = self._site
        after = site.volume.kind()
        for damage in site.watch.damage():
            site.violate(f"after exit code {code}: {damage}")
        foreign = site.volume.foreign
        if foreign is not None:
            found = site.volume.set_aside()
            if found is None or not same_tree(foreign, found):
                site.violate(f"after exit code {code}: the library that was there is not whole")
        if code == 0:
            if after is not (step.leaves or before):
                site.violate(f"exit code 0, and there is {after.value}")
            if step.leaves is Kind.MOVED and not site.volume.is_moved():
                site.violate("exit code 0 without a receipt")
            if step.leaves is None:
                for damage in site.watch.staged_damage():
                    site.violate(f"after exit code 0 of 'pull --until ready': {damage}")
            return
        is_stopped = self._story.mode is Mode.STOPPED
        is_committed = not is_stopped and site.vm.is_committed()
        self._outcome.undecided += code > 0 and is_committed and not site.volume.is_moved()
        run = FailedRun(
            before,
            after,
            code,
            is_committed=is_stopped or is_committed,
            failed_calls=site.failed_calls(),
            is_undone=site.watch.is_undone(),
        )
        if after is not before and not may_change(run):
            site.violate(f"exit code {code}, and instead of {before.value} is {after.value}")

    def _judge_end(self) -> None:
        """Judge which servers run, and what is published, when nothing is under way."""
        self._site.check_agent()
        site, vm = self._site, self._site.vm
        self._wait_for_server()
        on_vm, on_volume = len(vm.plex.processes()), site.volume.is_moved()
        if on_volume and self._story.mode is not Mode.STOPPED:
            if vm.is_committed():
                for damage in library_damage(site.volume.target, vm.library):
                    site.violate(f"at the end: {damage}")
            elif not site.watch.is_undone():
                site.violate("at the end: the library is published, and the move not committed")
            elif not on_vm:
                site.violate("at the end: the move was undone, and Plex does not run")
        for damage in site.watch.damage():
            site.violate(f"at the end: {damage}")
        may_be_two = site.watch.is_excused or site.watch.is_undone()
        for fault in server_faults(on_vm, on_volume=on_volume, at_rest=True, may_be_two=may_be_two):
            site.violate(f"at the end: {fault}")


def _steps(mode: Mode) -> list[Step]:
    move = Step((), Kind.MOVED)
    match mode:
        case Mode.STOPPED:
            return [Step(("--no-cutover",), Kind.MOVED)]
        case Mode.REHEARSED:
            return [Step(("--rehearse",), Kind.REHEARSAL), move]
        case Mode.PRESEEDED:
            return [Step(("--until", "ready"), None), move]
        case Mode.SET_ASIDE:
            return [Step(("--on-existing", "set-aside"), Kind.MOVED)]
        case Mode.MOVE | Mode.RESUMED:
            return [move]
