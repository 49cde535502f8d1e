"""Check that the volume can hold a manifest, and decide which attributes its entries get."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import structlog

from initpuller.volume.fidelity import AttributePolicy
from initpuller.volume.filesystem import mount_of
from initpuller.volume.fitness.capabilities import (
    clamps,
    collision,
    drops_xattrs,
    judge,
    losses,
    refuse,
)
from initpuller.volume.fitness.collisions import suspects
from initpuller.volume.fitness.probe import colliding, probe
from initpuller.volume.fitness.requirements import Needs
from shared.checks import Outcome
from shared.errors import NoSpace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from initpuller.volume.fidelity import Fidelity
    from initpuller.volume.fitness.capabilities import Abilities
    from initpuller.volume.ownership import Ownership
    from initpuller.volume.records.layout import Layout
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
            VolumeUnsuitable: the volume cannot hold the manifest; the message names the volume.
        """
        volume = mount_of(self._layout.folder)
        if self._abilities is None or needs != self._needs:
            try:
                self._abilities = probe(self._layout, needs, self._ownership)
            except NoSpace as error:
                self._full = error
                if earlier is None:
                    return AttributePolicy(self._ownership, is_probed=False)
                _log.warning("volume full, using an earlier probe", volume=volume)
                return self._policy(earlier, needs)
        abilities = self._abilities
        checks = judge(abilities, volume) + losses(abilities.fidelity, needs, volume)
        if abilities.folds_names:
            pairs = colliding(self._layout, suspects(entries))
            checks += [collision(pairs, volume)] if pairs else []
        refuse(checks)
        self._needs = needs
        for check in checks:
            if check.outcome is Outcome.WARNING and check.found not in self._warned:
                self._warned.add(check.found)
                _log.warning(check.found, check=check.name, hint=check.advice)
        return self._policy(abilities.fidelity, needs)

    def require(self, policy: AttributePolicy) -> None:
        """Raise the error of a volume that was too full to be probed.

        Call it after the check of the free space, which reports how much is missing.

        Raises:
            NoSpace: the volume was too full.
        """
        if not policy.is_probed and self._full is not None:
            raise self._full

    def _policy(self, fidelity: Fidelity, needs: Needs) -> AttributePolicy:
        is_lossy = clamps(fidelity, needs) or drops_xattrs(fidelity, needs)
        return AttributePolicy(self._ownership, fidelity, is_lossy=is_lossy)
