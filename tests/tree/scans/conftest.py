"""Fixtures of the tests of scans."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

import pytest
from rig.delta_scans import Scans

from agent.snapshots import store

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def trusted_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every filesystem counts as one whose times show each change."""
    monkeypatch.setattr(store, "write_back", lambda path: {os.stat(path).st_dev})


@pytest.fixture(params=["usual", "odd xattr"])
def library(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Folders with files, a database, links of both kinds, a FIFO, an xattr.

    The accelerator leaves a library to Python in which an xattr has an odd name.
    """
    library = tmp_path / "Library"
    content = random.Random(6)  # noqa: S311 - reproducible
    for folder in ("a", "b/below", "c"):
        (library / folder).mkdir(parents=True)
        for number in range(3):
            (library / folder / f"{number}").write_bytes(content.randbytes(3000))
    (library / "a" / "hard").hardlink_to(library / "a" / "0")
    (library / "b" / "link").symlink_to("below")
    (library / "c" / "x.db").write_bytes(b"database")
    os.mkfifo(library / "c" / "fifo")
    name = "user.two\nlines" if request.param == "odd xattr" else "user.one"
    os.setxattr(library / "b" / "below" / "0", name, b"")
    with (library / "c" / "sparse").open("wb") as sparse:
        sparse.truncate(100_000)
    return library


@pytest.fixture
def scans(tmp_path: Path, library: Path) -> Scans:
    """Scans of the library."""
    return Scans(tmp_path / "state", library)
