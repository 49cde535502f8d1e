"""Check whether the pod's Plex can run on the source's database."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from shared.checks import CheckId
from shared.plex.version import find_version

if TYPE_CHECKING:
    from shared.checks import Check


_GIVE = (
    "Give --plex-version or PLEXODUS_PLEX_VERSION, the tag of the image: it must not be older than"
    " the source."
)
_AT_START = "the pod's image ({}) installs the newest Plex of its channel at each start"
_FLOATING = {
    "latest": "the pod's image (latest) is the one that was the newest when its node pulled it:"
    " nobody can know from here whether it is older than the source",
    **{tag: _AT_START.format(tag) for tag in ("public", "beta", "plexpass")},
}
"""Tags of Plex's image without a version (its README, section "Tags"). linuxserver.io's image has
``latest``, too."""


class VersionPolicy(Enum):
    """The action if the pod's Plex is older than the source's."""

    REFUSE = "refuse"
    WARN = "warn"


@dataclass(frozen=True)
class VersionGate:
    """The Plex that the pod will run, and the policy for an older one."""

    plex_version: str = ""
    """Version of the pod's Plex, or its image with or without a tag; empty if it is not known."""
    policy: VersionPolicy = VersionPolicy.REFUSE

    def check(self, source: str | None) -> Check:
        """Return whether the pod's Plex is at least as new as the source's.

        Plex migrates its database's schema forward, and never back. Without ``source``, the agent
        did not find the version.
        """
        ours, theirs = find_version(self.plex_version), find_version(source or "")
        if theirs is None:
            return CheckId.VERSION.warning("the source's Plex version is not known", _GIVE)
        if ours is None:
            found = _FLOATING.get(_tag(self.plex_version), "the pod's Plex version is not known")
            advice = f"Use the image's tag {theirs} or a newer one." if self.plex_version else _GIVE
            return CheckId.VERSION.warning(found, advice)
        if ours == theirs:
            return CheckId.VERSION.passed(f"{ours} on both sides")
        if ours > theirs:
            return CheckId.VERSION.warning(
                f"the pod's {ours} is newer than the source's {theirs}",
                "Plex will migrate its database at the first start: give it time, with no liveness"
                f" probe; or begin with {theirs} and upgrade later.",
            )
        is_refused = self.policy is VersionPolicy.REFUSE
        report = CheckId.VERSION.failure if is_refused else CheckId.VERSION.warning
        return report(
            f"the pod's {ours} is older than the source's {theirs}",
            f"Use the image's tag {theirs} or a newer one: an older Plex cannot read the database.",
        )


def _tag(image: str) -> str:
    """Return the tag of an image, which is ``latest`` if it has none, or a bare tag."""
    if not image:
        return ""
    last = image.rpartition("/")[2].partition("@")[0]
    name, colon, tag = last.partition(":")
    if colon:
        return tag
    return "latest" if "/" in image else name
