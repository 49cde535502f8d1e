"""Two threads beside a story: no two servers at any moment, and no part of a library."""

from __future__ import annotations

import subprocess
import threading
import time
import traceback
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, TypeVar

from campaign.oracle import copy_damage, library_damage, rehearsal_damage, same_tree, server_faults
from campaign.verdicts import may_have_undone
from campaign.volume import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import TracebackType

    from campaign.vm import Vm
    from campaign.volume import Volume

_EVERY = 0.005
_LOG_SECONDS = 5.0
"""Time until the agent has logged a request that it has answered."""
_Found = TypeVar("_Found")


@dataclass(frozen=True)
class _Publication:
    """A library that was published."""

    mark: tuple[int, int]
    stop: int
    """Number of the copy of the source that it has to equal."""
    has_commit: bool
    """Whether the agent has committed the move of this library."""


class Watch:
    """The checks that hold at any moment of a story.

    Args:
        vm: the VM.
        volume: the volume.
        made: the library as it was made.
        report: takes each violation.
        fail: takes what a check itself failed with.
        has_cutover: whether the agent stops Plex, and a library is published after the commit only.
    """

    def __init__(
        self,
        vm: Vm,
        volume: Volume,
        made: Path,
        *,
        report: Callable[[str], None],
        fail: Callable[[str], None],
        has_cutover: bool = True,
    ) -> None:
        self._vm, self._volume, self._made = vm, volume, made
        self._report, self._fail, self._has_cutover = report, fail, has_cutover
        self._ending = threading.Event()
        self._threads = [
            threading.Thread(target=self._loop, args=(each,), daemon=True)
            for each in (self._servers, self._library)
        ]
        self.is_excused = False
        """Whether Plex was started without a cutover that could prevent it."""
        self._lock = threading.Lock()
        self._publication: _Publication | None = None
        self._ended_undos: list[subprocess.Popen[bytes]] = []
        self._undone = 0
        """Number of copies of the source when an undo last ran: it has undone no later stop."""
        self._commits: dict[str, int] = {}
        """For each cutover that was seen committed: number of copies of the source then."""
        self._interruptions = 0
        """Odd while a disk is away."""

    def __enter__(self) -> Self:
        """Start both threads."""
        for each in self._threads:
            each.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End both threads."""
        self._ending.set()
        for each in self._threads:
            each.join()

    def is_undone(self) -> bool:
        """Whether a person may have undone the committed move of the published library."""
        self._follow()
        found = self._publication
        return found is not None and found.has_commit and self._undone >= found.stop

    def damage(self) -> list[str]:
        """Return what is wrong with the library that is published now."""
        volume = self._volume
        match volume.kind():
            case Kind.ABSENT:
                return []
            case Kind.FOREIGN:
                foreign = volume.foreign
                is_same = foreign is not None and same_tree(foreign, volume.library)
                return [] if is_same else ["the library that was there before was changed"]
            case Kind.REHEARSAL:
                return rehearsal_damage(volume.target, self._made, self._vm.library)
            case Kind.MOVED:
                self._follow()
                if self._publication is None:  # it was moved back meanwhile
                    return []
                copy = self._vm.plex.stop_copy(self._publication.stop)
                return library_damage(volume.target, copy)

    def staged_damage(self) -> list[str]:
        """Return what is wrong with the library in staging, of a pull that waits for the move."""
        volume = self._volume
        return copy_damage(volume.staged, self._made, self._vm.library, volume.flipped)

    @contextmanager
    def interrupted(self) -> Iterator[None]:
        """Ignore what either thread sees before the block ends: a disk is away."""
        self._interruptions += 1
        try:
            yield
        finally:
            self._interruptions += 1

    def _loop(self, check: Callable[[], None]) -> None:
        try:
            check()
        except Exception:  # noqa: BLE001 - without it, nothing would be checked any more
            self._fail(f"the watch has ended: {traceback.format_exc()}")

    def _servers(self) -> None:
        has_reported = False
        while not self._ending.is_set():
            self._seen(self._follow)
            found = self._seen(self._check_servers)
            if found and not has_reported:
                has_reported = True
                self._report(f"while it ran: {'; '.join(found)}")
            time.sleep(_EVERY)

    def _check_servers(self) -> list[str]:
        on_volume = self._volume.is_moved()
        on_vm = len(self._vm.plex.processes())
        return server_faults(
            on_vm,
            on_volume=on_volume,
            at_rest=False,
            may_be_two=self.is_excused or self.is_undone(),
        )

    def _follow(self) -> None:
        """Find out what was committed and undone, and from which stop a library was published."""
        with self._lock:
            new = self._new_mark()  # before the record: a commit comes before its publication
            undos = list(self._vm.undos)
            new_undos = [each for each in undos if each not in self._ended_undos]
            self._ended_undos += [each for each in new_undos if each.poll() is not None]
            record = self._vm.record()
            name, is_committed = str(record.get("id", "")), record["phase"] == "committed"
            if any(may_have_undone(each.poll(), is_committed=is_committed) for each in new_undos):
                self._undone = self._vm.plex.stops
            if is_committed:
                self._commits.setdefault(name, self._vm.plex.stops)
            if new is not None:
                self._publication = self._published(new, name)

    def _new_mark(self) -> tuple[int, int] | None:
        """Return the mark of a moved library whose publication is not known yet."""
        mark, known = self._mark(), self._publication
        is_known = mark is None or (known is not None and known.mark == mark)
        return None if is_known or self._volume.kind() is not Kind.MOVED else mark

    def _published(self, mark: tuple[int, int], cutover: str) -> _Publication:
        """Return a new publication of the agent's last ``cutover``; report it without a commit."""
        stops = self._vm.plex.stops
        if not self._has_cutover:
            return _Publication(mark, stops, has_commit=False)
        if cutover in self._commits:
            return _Publication(mark, self._commits[cutover], has_commit=True)
        # An undo may come so soon that the record was not seen committed.
        if 0 < stops <= self._undone and self._has_logged_commit(cutover):
            return _Publication(mark, stops, has_commit=True)
        self._report("the library was published before the commit")
        return _Publication(mark, stops, has_commit=False)

    def _has_logged_commit(self, cutover: str) -> bool:
        """Return whether the agent's log has its commit, after a while at most."""
        deadline = time.monotonic() + _LOG_SECONDS
        while cutover not in self._vm.accepted_commits():
            if time.monotonic() > deadline:
                return False
            time.sleep(_EVERY)
        return True

    def _library(self) -> None:
        seen: object = None
        while not self._ending.is_set():
            found = self._seen(self._mark)
            if found is not None and found != seen:
                damage = self._seen(self.damage)
                # It may have been moved back meanwhile, or have got the mode of its top folder.
                if damage and self._seen(self._mark) == found:
                    self._report(f"published in part: {'; '.join(damage)}")
            seen = found
            time.sleep(_EVERY)

    def _seen(self, check: Callable[[], _Found]) -> _Found | None:
        """Return what ``check`` finds; None if a disk was away meanwhile."""
        before = self._interruptions
        try:
            found = check()
        except (OSError, subprocess.CalledProcessError):
            if not self._was_interrupted(before):
                raise
            return None
        return None if self._was_interrupted(before) else found

    def _was_interrupted(self, before: int) -> bool:
        return before % 2 == 1 or self._interruptions != before

    def _mark(self) -> tuple[int, int] | None:
        """Return what changes with each publication."""
        try:
            about = self._volume.library.lstat()
        except FileNotFoundError:
            return None
        return about.st_ino, about.st_ctime_ns
