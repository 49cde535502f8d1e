"""Each program runs with the packages of its own lock file, though developers have them all."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_IMPORT_ALL = """
import importlib, pkgutil, sys
from importlib.machinery import PathFinder
from importlib.metadata import packages_distributions

locked = {"plexodus", *sys.argv[2:]}
normalized = lambda name: name.lower().replace("_", "-").replace(".", "-")
missing = {
    name for name, found in packages_distributions().items()
    if not locked & {normalized(each) for each in found}
}

class LockedPackages(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name in missing else super().find_spec(name, path, target)

sys.meta_path = [LockedPackages if each is PathFinder else each for each in sys.meta_path]
for side in (sys.argv[1], "shared"):
    package = importlib.import_module(side)
    for module in pkgutil.walk_packages(package.__path__, f"{side}."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
print(*sorted(sys.modules))
"""


@pytest.mark.parametrize(
    ("side", "lock", "absent"),
    [
        ("agent", "agent", {"rich", "kubernetes", "plexapi", "requests"}),
        ("initpuller", "puller", {"cryptography", "isal"}),
    ],
)
def test_every_module_with_the_locked_packages_only(side: str, lock: str, absent: set[str]) -> None:
    """Every module can be imported while all packages outside the lock file are blocked."""
    text = (ROOT / f"requirements-{lock}.lock").read_text()
    locked = set(re.findall(r"^([a-z0-9-]+)==", text, re.MULTILINE))
    assert not absent & locked

    done = subprocess.run(
        [sys.executable, "-c", _IMPORT_ALL, side, *sorted(locked)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert {side, "shared", "aiohttp", "zstandard"} <= loaded
    assert not absent & loaded


def test_lock_files_agree() -> None:
    """A package has the same version in each lock file, so that any of them install together."""
    pinned: dict[str, set[str]] = {}
    for path in ROOT.glob("requirements-*.lock"):
        for line in re.findall(r"^[a-z0-9-]+==[^\\\n]+", path.read_text(), re.MULTILINE):
            package, _, marker = line.partition(";")
            name, _, version = package.strip().partition("==")
            if "python_full_version" not in marker or name == "typing-extensions":
                pinned.setdefault(name, set()).add(version)
    assert len(pinned) > 80
    assert {name: found for name, found in pinned.items() if len(found) > 1} == {}
