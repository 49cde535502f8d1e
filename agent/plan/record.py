"""The facts that a plan was made from. The folder keeps them for a comparison with a later plan."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import msgspec

from agent.plan.claim import claim_gib, copy_seconds, is_long
from agent.plan.options import PlanOptions
from shared import typed_json
from shared.errors import ConfigurationError
from shared.wire.protocol import MediaFolder

if TYPE_CHECKING:
    from agent.plan.library import PlannedLibrary

RECORD = "plan.lock"
"""Its content is JSON. Argo CD would apply a file that is called so."""
FileName = Annotated[str, msgspec.Meta(pattern=r"^([a-z]+/)?[A-Za-z]+\.[a-z]+\Z")]
"""The name of a file in the folder of a plan, or in a folder there."""


class Facts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The facts of a library that decide what is in its plan, without sizes that always change."""

    version: str
    owner: tuple[int, int]
    claim_gib: int
    is_long: bool
    media: list[MediaFolder]


class PlanRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file ``plan.lock``."""

    options: PlanOptions
    facts: Facts
    files: dict[FileName, str]
    """SHA-256 of each file as it was written, hexadecimal."""


def facts_of(library: PlannedLibrary, before: PlanRecord | None) -> Facts:
    """Return the facts of a library; the claim of the plan ``before`` stays while it fits."""
    claimed = before.facts.claim_gib if before else 0
    return Facts(
        version=library.version,
        owner=library.owner,
        claim_gib=claim_gib(library.content_bytes, library.entries, claimed),
        is_long=is_long(copy_seconds(library.content_bytes)),
        media=sorted(library.media, key=lambda folder: (folder.section, folder.path)),
    )


def differences(before: Facts, now: Facts) -> list[str]:
    """Return a line for each fact that has changed."""
    pairs = {
        "Plex's version": (before.version, now.version),
        "owner of the files": (_owner(before), _owner(now)),
        "claim": (f"{before.claim_gib} GiB", f"{now.claim_gib} GiB"),
        "first copy": (_copy(before), _copy(now)),
    }
    lines = [f"{what}: {one} -> {other}" for what, (one, other) in pairs.items() if one != other]
    for sign, some, others in (("-", before, now), ("+", now, before)):
        gone = [each for each in some.media if each not in others.media]
        lines += [f"media {sign} {each.section!r}: {each.path!r}" for each in gone]
    return lines


def read_record(folder: str) -> PlanRecord | None:
    """Return the record in ``folder``; None if it has no plan.

    Raises:
        ConfigurationError: If it cannot be read.
    """
    path = os.path.join(folder, RECORD)
    try:
        with open(path, "rb") as file:
            return typed_json.decode(file.read(), PlanRecord)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigurationError(
            f"this is not the record of a plan ({error})",
            path=path,
            hint="Name another folder.",
        ) from error


def _owner(facts: Facts) -> str:
    return "{}:{}".format(*facts.owner)


def _copy(facts: Facts) -> str:
    return "long: make it days before" if facts.is_long else "short"
