"""The campaign: whole moves of the real programs with random faults, judged by other programs.

::

    PYTHONPATH=tests .venv/bin/python -m campaign --faults 200

It needs root, for namespaces and mounts, and gcc. It exits with 1 if the promise was broken.
"""

from __future__ import annotations

import argparse
import io
import os
import queue
import random
import signal
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from campaign.faults.registry import FAULTS
from campaign.namespaces import PlexTurn, Worker, prepare
from campaign.shrink import shortest
from campaign.story import Mode, draw_story, parse_name
from campaign.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from campaign.machine import Outcome
    from campaign.story import Story


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a campaign, or one story again; return the exit code."""
    options = _parse(arguments)
    if os.geteuid() != 0:
        sys.exit("The campaign needs root, for namespaces and mounts.")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name of the library is no UTF-8
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("The campaign was stopped."))
    with tempfile.TemporaryDirectory(prefix="plexodus-campaign-") as name:
        folder = Path(name)
        if not prepare(folder):
            sys.exit("The campaign needs gcc: many faults are calls that fail by a library in C.")
        if options.replay:
            return _replay(folder, options.replay)
        return _Campaign(folder, options).run()


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="campaign", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--faults", type=int, default=150, help="end after so many faults (%(default)s)")
    add("--seconds", type=float, default=7200, help="begin no story later (%(default)s)")
    add("--seed", type=int, help="seed of the first story; the others follow (random)")
    add("--workers", type=int, default=2, help="stories at the same time (%(default)s)")
    add(
        "--only",
        metavar="FAULT",
        default="",
        help="leave out all faults whose name does not have FAULT in it",
    )
    add("--replay", metavar="SEED", help="run this story alone, SEED or SEED:FAULT,FAULT")
    return parser.parse_args(arguments)


def _replay(folder: Path, name: str) -> int:
    """Run one story again; make it shorter if it fails."""
    story = parse_name(name, FAULTS)
    with Worker(folder, 0, PlexTurn()) as worker:
        _say(f"{story.name}: {story}")
        outcome = worker.run(story.name)
        _say("\n".join(outcome.timeline))
        if outcome.violations:
            _show_violation(story, outcome, worker)
    return 1 if outcome.violations or outcome.failure else 0


class _Campaign:
    """Stories with consecutive seeds, in several workers."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self._folder, self._options = folder, options
        self._first: int = random.randrange(10**6) if options.seed is None else options.seed
        self._seeds = iter(range(self._first, self._first + 10**6))
        self._last = self._first
        self._deadline = time.monotonic() + options.seconds
        self._lock = threading.Lock()
        self._table = Table()
        self._calm: dict[tuple[Mode, float | None], Outcome] = {}
        """The result of a story without faults, by its mode and the speed of the network."""
        self._failed = 0
        self._errors: queue.SimpleQueue[BaseException] = queue.SimpleQueue()

    def run(self) -> int:
        """Run until there were enough faults, or the time is over; print the table."""
        turn = PlexTurn()
        with ExitStack() as stack:
            workers = [
                stack.enter_context(Worker(self._folder, number, turn))
                for number in range(self._options.workers)
            ]
            threads = [threading.Thread(target=self._work, args=(each,)) for each in workers]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        if not self._errors.empty():
            raise self._errors.get()
        names = [fault.name for fault in FAULTS]
        _say("\n" + "\n".join(self._table.lines(names)) + "\n")
        _say("\n".join(self._table.notes()))
        without_effect = self._table.without_effect()
        if without_effect:
            _say(f"Never took place, however often they were drawn: {', '.join(without_effect)}.")
        _say(f"Seeds {self._first} to {self._last}. Violations: {self._failed}.")
        return 1 if self._failed or self._table.unjudged or without_effect else 0

    def _work(self, worker: Worker) -> None:
        try:
            while (seed := self._next_seed()) is not None:
                story = draw_story(seed, FAULTS)
                wanted = [
                    number
                    for number, act in zip(story.kept, story.acts, strict=True)
                    if self._options.only in act.fault
                ]
                if not wanted:
                    continue
                story = story.only(wanted)
                calm = self._calm_outcome(story, worker)
                self._add(story, worker.run(story.name), calm, worker)
        except Exception as error:  # noqa: BLE001 - it is raised by the main thread
            self._errors.put(error)

    def _next_seed(self) -> int | None:
        with self._lock:
            is_over = self._table.faults >= self._options.faults
            if is_over or time.monotonic() > self._deadline or not self._errors.empty():
                return None
            self._last = next(self._seeds)
            return self._last

    def _calm_outcome(self, story: Story, worker: Worker) -> Outcome:
        """Return what a story of this mode and speed is without faults."""
        key = story.mode, story.rate
        with self._lock:
            found = self._calm.get(key)
        if found is not None:
            return found
        found = worker.run(story.calm.name)
        if found.failure or found.violations or found.codes[-1:] != [0]:
            raise RuntimeError(f"a story without faults failed: {chr(10).join(found.timeline)}")
        with self._lock:
            if self._calm.setdefault(key, found) is found:
                self._table.add_calm(found)
        return found

    def _add(self, story: Story, outcome: Outcome, calm: Outcome, worker: Worker) -> None:
        with self._lock:
            self._table.add(outcome, calm)
            verdict = "VIOLATION" if outcome.violations else "as promised"
            if outcome.failure:
                verdict = "NOT JUDGED"
            _say(
                f"{self._table.faults:5} faults, seed {story.seed}: {verdict},"
                f" {outcome.seconds:.1f} s, {story.mode.value}, codes {outcome.codes}:"
                f" {', '.join(outcome.happened) or 'nothing happened'}"
            )
            self._failed += bool(outcome.violations)
        if outcome.failure:
            _say("  " + "\n  ".join(outcome.timeline))
        elif outcome.violations:
            _show_violation(story, outcome, worker)


def _show_violation(story: Story, outcome: Outcome, worker: Worker) -> None:
    """Print a violation, with the shortest story that has one."""
    found = "\n  ".join(outcome.violations)
    _say(f"VIOLATION, seed {story.seed}: {story}\n  {found}")
    _say("  " + "\n  ".join(outcome.timeline))
    best = shortest(story, outcome, lambda each: worker.run(each.name))
    _say(f"shortest story: --replay {best.name}: {parse_name(best.name, FAULTS)}")
    if best is not outcome:
        _say("  " + "\n  ".join(best.timeline))


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
