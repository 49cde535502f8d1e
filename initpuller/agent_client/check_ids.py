"""Identify the checks of an agent whose release has no identifiers of checks."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import msgspec

from shared.checks import CheckId

if TYPE_CHECKING:
    from shared.checks import Check
    from shared.wire.protocol import ServerReport

    Report = TypeVar("Report", bound=ServerReport)

_NAMES = {
    "library": CheckId.LIBRARY,
    "cutover": CheckId.CUTOVER,
    "Metadata": CheckId.METADATA_FOLDER,
    "Media": CheckId.MEDIA_FOLDER,
    "library database": CheckId.LIBRARY_DATABASE,
    "blobs database": CheckId.BLOBS_DATABASE,
}
"""The checks that a pull treats by their identifier, by their names before 0.2."""


def with_check_ids(report: Report) -> Report:
    """Return the report with identifiers for the checks that a pull has to know."""
    return msgspec.structs.replace(report, checks=[_identified(each) for each in report.checks])


def _identified(check: Check) -> Check:
    if check.id is not CheckId.UNKNOWN or check.name not in _NAMES:
        return check
    return msgspec.structs.replace(check, id=_NAMES[check.name])
