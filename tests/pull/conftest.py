"""Fixtures of the tests of what a later pull transfers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from rig.cutover.deltas import SteadyLibraries

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def steady_libraries(tmp_path_factory: pytest.TempPathFactory) -> SteadyLibraries:
    """Prepare libraries that age while other tests run, because each wait would take 8 seconds."""
    return SteadyLibraries(tmp_path_factory.mktemp("steady"))


@pytest.fixture
def steady_library(steady_libraries: SteadyLibraries) -> Iterator[Path]:
    """Return small files in folders, a large file and links of both kinds, all some seconds old."""
    library = steady_libraries.take()
    yield library
    steady_libraries.drop(library)
