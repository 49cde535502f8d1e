"""Fixtures of tests about what the next pull transfers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from rig.cutover.deltas import SteadyLibraries

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def steady_libraries(tmp_path_factory: pytest.TempPathFactory) -> SteadyLibraries:
    """Libraries that age while other tests run: each wait would be 8 seconds."""
    return SteadyLibraries(tmp_path_factory.mktemp("steady"))


@pytest.fixture
def steady_library(steady_libraries: SteadyLibraries) -> Iterator[Path]:
    """Small files in folders, a large one, links of both kinds; all of it some seconds old."""
    library = steady_libraries.take()
    yield library
    steady_libraries.drop(library)
