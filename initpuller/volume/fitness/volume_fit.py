"""Check that a volume fits a library: for a manifest, or for a preflight, which has none."""

from __future__ import annotations

import copy
import errno
import os
import unicodedata
from contextlib import suppress
from typing import TYPE_CHECKING

import structlog

from initpuller.volume.fidelity import AttributePolicy
from initpuller.volume.filesystem import mount_of
from initpuller.volume.fitness.capabilities import (
    ALWAYS_NEEDED,
    collision,
    is_lossy,
    judge,
    losses,
    refuse,
)
from initpuller.volume.fitness.probe import colliding, probe
from initpuller.volume.fitness.requirements import Needs
from initpuller.volume.records.lock import locked
from shared.checks import CheckId, Outcome
from shared.errors import NoSpace, StorageError, VolumeLocked, storage_errors
from shared.presence import is_there

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from initpuller.volume.fidelity import Fidelity
    from initpuller.volume.fitness.capabilities import Abilities
    from initpuller.volume.ownership import Ownership
    from initpuller.volume.records.layout import Layout
    from shared.checks import Check
    from shared.tree.manifest import Entry

_log = structlog.get_logger("puller")


class VolumeFit:
    """The probes of one run: one for the first manifest, and another if a later one needs more.

    The caller holds the volume's lock.
    """

    def __init__(self, layout: Layout, ownership: Ownership) -> None:
        self._layout, self._ownership = layout, ownership
        self._needs: Needs | None = None
        self._abilities: Abilities | None = None
        self._warned: set[str] = set()
        self._full: NoSpace | None = None

    def collect(self) -> tuple[Needs, Callable[[Entry], None]]:
        """Return the needs of this run's earlier manifests, and a function that adds an entry.

        An entry that a delta keeps was in an earlier manifest. It is added only if this run has
        not read that manifest.
        """
        if self._needs is None:
            needs = Needs()
            return needs, needs.take
        needs = copy.deepcopy(self._needs)

        def take(entry: Entry) -> None:
            if not entry.kept:
                needs.take(entry)

        return needs, take

    def policy(
        self, needs: Needs, entries: Iterable[Entry], earlier: Fidelity | None
    ) -> AttributePolicy:
        """Return which attributes the entries of a manifest get on this volume.

        Args:
            needs: from :meth:`collect`, after all entries were added.
            entries: the manifest.
            earlier: the result of an earlier run, for a volume that is too full to be probed.
                Without it, call :meth:`require` before anything is fetched.

        Raises:
            VolumeUnsuitable: the volume cannot hold the manifest.
        """
        volume = mount_of(self._layout.folder)
        if self._abilities is None or needs != self._needs:
            try:
                is_first = self._abilities is None
                self._abilities = probe(
                    self._layout, needs, self._ownership, has_databases=is_first
                )
            except NoSpace as error:
                self._full = error
                if earlier is None:
                    return AttributePolicy(self._ownership, is_probed=False)
                _log.warning("volume full, using an earlier probe", volume=volume)
                return self._policy(earlier, needs)
        fidelity = self._abilities.fidelity
        checks = judge(self._abilities, volume) + losses(fidelity, needs, volume)
        if self._abilities.folds_names:
            pairs = colliding(self._layout, suspects(entries))
            checks += [collision(pairs, volume)] if pairs else []
        refuse(checks)
        self._needs = needs
        for check in checks:
            if check.outcome is Outcome.WARNING and check.found not in self._warned:
                self._warned.add(check.found)
                _log.warning(check.found, check=check.name, hint=check.advice)
        return self._policy(fidelity, needs)

    def require(self, policy: AttributePolicy) -> None:
        """Raise NoSpace if the volume was too full to be probed.

        Call it after the check of the free space, which reports how much is missing.
        """
        if not policy.is_probed and self._full is not None:
            raise self._full

    def _policy(self, fidelity: Fidelity, needs: Needs) -> AttributePolicy:
        return AttributePolicy(self._ownership, fidelity, is_lossy=is_lossy(fidelity, needs))


def probe_for_preflight(layout: Layout, ownership: Ownership) -> list[Check]:
    """Return the abilities of the volume that a library of Plex may need.

    Write only a scratch folder, and remove the puller's own folder if that was not there before. Do
    not probe a volume that is mounted read-only, or that a pull is writing to.
    """
    volume = mount_of(layout.target)
    try:
        with storage_errors(layout.folder):
            is_new = not is_there(layout.folder)
        with locked(layout):
            try:
                return _checks(layout, ownership, volume)
            finally:
                if is_new:  # remove it while the lock in it is held: see :func:`locked`
                    with suppress(OSError):
                        os.unlink(layout.lock)
                        os.rmdir(layout.folder)
    except VolumeLocked:
        return [CheckId.VOLUME.passed("not probed: a pull is at work on it, and has probed it")]
    except StorageError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EROFS:
            advice = (
                "Mount it read-write for this preflight to probe it. A pull has to write to it."
            )
            return [CheckId.VOLUME.warning(f"not probed: {volume} is mounted read-only", advice)]
        return [CheckId.VOLUME.failure(f"{volume}: {error.what}", error.hint)]


def _checks(layout: Layout, ownership: Ownership, volume: str) -> list[Check]:
    needs = Needs.generic()
    abilities = probe(layout, needs, ownership)
    owner = {CheckId.VOLUME_OWNER} if ownership.fixed else set()  # otherwise the source decides
    checks = judge(abilities, volume, ALWAYS_NEEDED | owner)
    checks += losses(abilities.fidelity, needs, volume)
    if abilities.folds_names:
        found = f"on the volume at {volume}, names that differ only in case or Unicode form are one"
        advice = "A pull is refused if the library has such names. Use ext4 or XFS to be sure."
        checks.append(CheckId.VOLUME_CASE.warning(found, advice))
    if checks:
        return checks
    found = f"{volume} keeps owners, modes, times, links and names, and can rename and lock"
    return [CheckId.VOLUME.passed(found)]


def suspects(entries: Iterable[Entry]) -> Iterator[tuple[bytes, bytes]]:
    """Yield pairs of paths that differ only in case, Unicode form, or a trailing dot or blank.

    Only the volume can say whether they are one file: each filesystem has its own table. The
    content of a folder comes right after it.
    """
    folders: list[tuple[bytes, dict[str, bytes]]] = []
    for entry in entries:
        above, _, name = entry.path.rpartition(b"/")
        while folders and folders[-1][0] != above:
            if above.startswith(folders[-1][0] + b"/") or not folders[-1][0]:
                break
            folders.pop()
        if not folders or folders[-1][0] != above:
            folders.append((above, {}))
        first = folders[-1][1].setdefault(_folded(name), entry.path)
        if first != entry.path:
            yield first, entry.path


def _folded(name: bytes) -> str:
    """Return a form of ``name`` that is the same for all names that some filesystem treats as one.

    It combines the rules of all filesystems: full case folding and canonical decomposition without
    invisible characters (ext4), and without trailing dots and spaces (FAT, SMB).
    """
    text = name.decode("utf-8", "surrogateescape")
    if not text.isascii():
        text = unicodedata.normalize("NFD", unicodedata.normalize("NFD", text).casefold())
        text = "".join(c for c in text if unicodedata.category(c) != "Cf")
    return text.casefold().rstrip(". ")
