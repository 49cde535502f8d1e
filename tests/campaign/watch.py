"""Two threads beside a story: no two servers at any moment, and no part of a library."""

from __future__ import annotations

import subprocess
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self, TypeVar

from campaign.oracle import library_damage, rehearsal_damage, same_tree, server_faults
from campaign.volume import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import TracebackType

    from campaign.vm import Vm
    from campaign.volume import Volume

_EVERY = 0.005
_Found = TypeVar("_Found")


class Watch:
    """The checks that hold at any moment of a story.

    Args:
        vm: the VM.
        volume: the volume.
        made: the library as it was made.
        report: takes each violation.
    """

    def __init__(self, vm: Vm, volume: Volume, made: Path, report: Callable[[str], None]) -> None:
        self._vm, self._volume, self._made, self._report = vm, volume, made, report
        self._ending = threading.Event()
        self._threads = [
            threading.Thread(target=each, daemon=True) for each in (self._servers, self._library)
        ]
        self.is_excused = False
        """Whether Plex was started without a cutover that could prevent it."""
        self.has_seen_fence = False
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

    @property
    def has_undone(self) -> bool:
        """Whether a person may have undone a move that was committed."""
        return bool(self._vm.undos) and self.has_seen_fence

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
                return rehearsal_damage(volume.target, self._made)
            case Kind.MOVED:
                return library_damage(volume.target, [self._vm.library, *self._vm.plex.stops])

    @contextmanager
    def interrupted(self) -> Iterator[None]:
        """Ignore what either thread sees before the block ends: a disk is away."""
        self._interruptions += 1
        try:
            yield
        finally:
            self._interruptions += 1

    def _servers(self) -> None:
        has_reported = False
        while not self._ending.is_set():
            found = self._seen(self._check_servers)
            is_excused = self.is_excused or self.has_undone
            if found and not has_reported and not is_excused:
                has_reported = True
                self._report(f"while it ran: {'; '.join(found)}")
            time.sleep(_EVERY)

    def _check_servers(self) -> list[str]:
        self.has_seen_fence = self.has_seen_fence or self._vm.has_fence()
        on_volume = self._volume.is_moved()
        return server_faults(len(self._vm.plex.processes()), on_volume=on_volume, at_rest=False)

    def _library(self) -> None:
        seen: object = None
        while not self._ending.is_set():
            found = self._seen(self._mark)
            if found is not None and found != seen and self._is_damaged():
                time.sleep(_EVERY)
                # It may have been moved back meanwhile.
                is_same = self._seen(self._mark) == found
                damage = self._seen(self.damage)
                if is_same and damage and self._seen(self._mark) == found:
                    self._report(f"published in part: {'; '.join(damage)}")
            seen = found
            time.sleep(_EVERY)

    def _is_damaged(self) -> bool:
        return bool(self._seen(self.damage))

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
