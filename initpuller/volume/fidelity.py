"""The times and extended attributes of an entry that the volume can keep.

A volume that keeps less than the manifest has is given what it can keep, and is compared with
that. The receipt lists what it could not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from shared.errors import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from initpuller.volume.ownership import Ownership
    from shared.tree.manifest import Entry

XATTR_OVERHEAD = 32
"""Bytes that one extended attribute is counted with beside its name and value: its header, and
the padding of both (ext4: 16 and up to 3 each)."""
_LISTED = 1000
"""Paths in a receipt, for each kind of loss."""


class Fidelity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Times and extended attributes that the volume keeps; the default is all of them."""

    time_step_ns: int = 1
    """Times are rounded down to a multiple of this."""
    earliest_ns: int | None = None
    """Earlier times become this one; None: every time of a manifest is late enough."""
    latest_ns: int | None = None
    """Later times become this one; None: every time of a manifest is early enough."""
    xattr_bytes: int | None = None
    """An entry with more :func:`xattr_cost` keeps no extended attributes; None: all keep theirs."""

    def time(self, wanted_ns: int) -> int:
        """Return the time that the volume keeps for ``wanted_ns``, in nanoseconds from 1970."""
        time = self._within(wanted_ns)
        return time - time % self.time_step_ns

    def clamps(self, time_ns: int) -> bool:
        """Return whether a time is outside of what the volume can hold."""
        return self._within(time_ns) != time_ns

    def drops_xattrs(self, cost: int) -> bool:
        """Return whether extended attributes with this :func:`xattr_cost` are left out."""
        return self.xattr_bytes is not None and cost > self.xattr_bytes

    def kept(self, entry: Entry) -> Entry:
        """Return the entry as the volume keeps it."""
        time = self.time(entry.mtime_ns)
        drops = bool(entry.xattrs) and self.drops_xattrs(xattr_cost(entry.xattrs))
        if time == entry.mtime_ns and not drops:
            return entry
        xattrs = {} if drops else entry.xattrs
        return msgspec.structs.replace(entry, mtime_ns=time, xattrs=xattrs)

    def _within(self, time_ns: int) -> int:
        if self.earliest_ns is not None and time_ns < self.earliest_ns:
            return self.earliest_ns
        if self.latest_ns is not None and time_ns > self.latest_ns:
            return self.latest_ns
        return time_ns


EXACT = Fidelity()
"""A volume that keeps everything."""


@dataclass(frozen=True)
class AttributePolicy:
    """Which attributes the entries of a manifest get on this volume."""

    ownership: Ownership
    fidelity: Fidelity = EXACT
    is_probed: bool = True
    """False: the volume was too full to be probed, and is taken for one that keeps everything."""
    is_lossy: bool = False
    """Some times are outside of what the volume holds, or some extended attributes are left out."""

    @property
    def is_exact(self) -> bool:
        """Return whether the volume keeps every time and extended attribute of the manifest."""
        return not self.is_lossy and self.fidelity.time_step_ns == 1


class Losses(msgspec.Struct, forbid_unknown_fields=True):
    """The source's attributes that the volume cannot keep."""

    time_step_ns: int = 1
    """All times are rounded down to a multiple of this."""
    clamped_times: int = 0
    """Entries whose time was outside of what the volume holds, and is the nearest one it holds."""
    clamped: list[str] = []
    """The first of their paths."""
    without_xattrs: int = 0
    """Entries whose extended attributes were left out."""
    left_out: list[str] = []
    """The first of their paths."""


def losses(entries: Iterable[Entry], policy: AttributePolicy) -> Losses | None:
    """Return what the volume does not keep of a manifest's attributes; None if it keeps all."""
    fidelity = policy.fidelity
    if policy.is_exact:
        return None
    found = Losses(fidelity.time_step_ns)
    for entry in entries if policy.is_lossy else ():
        if fidelity.clamps(entry.mtime_ns):
            found.clamped_times += 1
            if found.clamped_times <= _LISTED:
                found.clamped.append(printable(entry.path))
        if fidelity.drops_xattrs(xattr_cost(entry.xattrs)):
            found.without_xattrs += 1
            if found.without_xattrs <= _LISTED:
                found.left_out.append(printable(entry.path))
    return found


def xattr_cost(xattrs: dict[str, bytes]) -> int:
    """Return the bytes that a volume needs for extended attributes, as a rough measure."""
    return sum(XATTR_OVERHEAD + len(name) + len(value) for name, value in xattrs.items())
