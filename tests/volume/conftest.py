"""Fixtures: a volume with a verified library."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from rig.verified import verify

if TYPE_CHECKING:
    from rig.verified import Verified


@pytest.fixture(scope="session")
def verified(tmp_path_factory: pytest.TempPathFactory) -> Verified:
    """A volume with a verified library in staging, which nobody changes: copy it for that."""
    return verify(tmp_path_factory.mktemp("verified"))
