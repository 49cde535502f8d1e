"""Losses that no power cut may cause: everything that one side had promised to the other."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rig.journal_oracle import journal_damage

from campaign.oracle import same_tree
from campaign.story import Mode
from campaign.volume import Kind

if TYPE_CHECKING:
    from campaign.site import Site


@dataclass(frozen=True)
class Promises:
    """The state that a power cut has to leave as it is."""

    kind: Kind | None
    """What has the library's name; None unless the last puller has ended by itself: others may not
    have made it durable."""
    has_receipt: bool
    """Whether that has the receipt of a move."""
    is_committed: bool
    """Whether the agent has told a puller that Plex is stopped for good, and nobody undid that."""
    is_undone: bool
    """Whether a person has undone the move, and no puller runs that could commit another one."""


def promises(site: Site) -> Promises:
    """Return what holds just before a power cut."""
    runs = site.process is not None
    kind = None if runs else site.volume.kind()
    has_receipt = not runs and site.volume.is_moved()
    has_ended = bool(site.vm.undos) and all(each.poll() == 0 for each in site.vm.undos)
    is_undone = has_ended and not runs and not site.vm.is_committed()
    return Promises(kind, has_receipt, _has_told_commit(site), is_undone)


def lost_on_volume(site: Site, before: Promises) -> list[str]:
    """Return what is wrong with the volume as a power cut has left it."""
    volume = site.volume
    found = [*site.watch.damage(), *journal_damage(volume.target, volume.flipped)]
    kind = volume.kind()
    if before.kind is not None and kind is not before.kind:
        found.append(f"instead of {before.kind.value} is {kind.value}")
    if before.has_receipt and not volume.is_moved():
        found.append("the receipt is gone")
    if volume.foreign is not None:
        aside = volume.set_aside()
        if aside is None or not same_tree(volume.foreign, aside):
            found.append("the library that was there is not whole")
    is_ready = kind is Kind.MOVED or volume.phase() in ("committing", "publishing")
    if before.is_committed and not is_ready:
        found.append(f"the move is committed, and the volume is {volume.phase() or 'empty'}")
    return found


def lost_on_vm(site: Site, before: Promises) -> list[str]:
    """Return what is wrong with the agent's state folders as a power cut has left them."""
    vm, found = site.vm, []
    for folder in (vm.agent.state, vm.agent.state.with_name("state-witness")):
        record = folder / "cutover.json"
        try:
            if record.exists():
                json.loads(record.read_bytes())
        except ValueError:
            found.append(f"{folder.name}/{record.name} is neither whole nor absent")
    missing = [each for each in _OF_PAIRING if not (vm.agent.state / each).exists()]
    if missing:
        found.append(f"the pairing lacks {', '.join(missing)}")
    is_published = site.story.mode is not Mode.STOPPED and site.volume.is_moved()
    if before.is_committed or (is_published and not vm.undos):
        if not vm.is_committed():
            found.append(f"the move was committed, and the record is {vm.record()}")
        if not vm.has_fence():
            found.append("the move was committed, and no fence is up")
    if before.is_undone and vm.is_committed():
        found.append("the move was undone, and the record is committed")
    return found


_OF_PAIRING = ("agent.crt", "agent.key", "token.sha256")


def _has_told_commit(site: Site) -> bool:
    """Return whether the agent has logged that it accepted a commit, and nobody has undone one."""
    return not site.vm.undos and bool(site.vm.accepted_commits())
