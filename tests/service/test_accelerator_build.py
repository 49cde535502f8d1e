"""The accelerator's build: exactly the pinned crates, from their registry, or nothing at all."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from shared import __version__

NATIVE = Path(__file__).parents[2] / "native"
LICENSES = {"MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "Unicode-3.0"}
needs_cargo = pytest.mark.skipif(
    shutil.which("cargo") is None, reason="the accelerator is built where cargo is"
)


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A copy of the accelerator's sources, with pins to change."""
    pattern = shutil.ignore_patterns("Cargo.lock", "target")
    return Path(shutil.copytree(NATIVE, tmp_path / "native", ignore=pattern))


def build(sources: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Build a wheel up to the call of maturin, with the crates that `make setup` has fetched."""
    wheels = sources.parent / "wheels"
    wheels.mkdir(exist_ok=True)
    (wheels / "old.whl").touch()
    maturin = sources.parent / "maturin"
    maturin.write_text(f"#!/bin/sh\necho $@ > {wheels}/new.whl\n")
    maturin.chmod(0o755)
    return subprocess.run(
        [sources / "build", "wheel", maturin, wheels],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"CARGO_NET_OFFLINE": "true"} | variables,
    )


def wheels(sources: Path) -> list[str]:
    """Return the names of the wheels that :func:`build` has left."""
    return sorted(path.name for path in (sources.parent / "wheels").iterdir())


@needs_cargo
def test_pinned_crates_are_built(sources: Path) -> None:
    """Pins that agree with the registry are built, locked, and the wheel of before is removed."""
    done = build(sources)

    assert done.returncode == 0, done.stderr
    assert wheels(sources) == ["new.whl"]
    assert "--locked" in (sources.parent / "wheels" / "new.whl").read_text()


@needs_cargo
@pytest.mark.parametrize(
    ("pattern", "by"),
    [
        pytest.param(r"^(itoa \S+ )\w", r"\1x", id="checksum"),
        pytest.param(r"^itoa \S+", "itoa 1.0.0", id="version"),
        pytest.param(r"^itoa .*\n", "", id="left-out"),
        pytest.param(r"^(itoa .*\n)", r"\1itoa2 1.0.0 ab\n", id="added"),
    ],
)
def test_changed_pin_is_refused(sources: Path, pattern: str, by: str) -> None:
    """A crate that differs from its pin is named, and nothing is built."""
    pins = sources / "crates.lock"
    pins.write_text(re.sub(pattern, by, pins.read_text(), flags=re.MULTILINE))

    done = build(sources)

    assert done.returncode == 1
    assert re.search("^[<>] itoa", done.stderr, re.MULTILINE)
    assert "nothing is built" in done.stderr
    assert wheels(sources) == []
    assert not (sources / "Cargo.lock").exists()


@needs_cargo
def test_changed_lock_of_cargo_does_not_matter(sources: Path) -> None:
    """A foreign checksum in cargo's own lock file is replaced by the registry's, or refused."""
    assert build(sources).returncode == 0
    lock, pins = sources / "Cargo.lock", sources / "crates.lock"
    made = lock.read_text()
    lock.write_text(re.sub(r'checksum = "\w', 'checksum = "x', made))

    assert build(sources).returncode == 0
    assert lock.read_text() == made

    pins.write_text(re.sub(r" \w(\w{63})$", r" x\1", pins.read_text(), flags=re.MULTILINE))
    assert build(sources).returncode == 1


@pytest.mark.parametrize("shown", ["cargo 1.60.0 (d1fd9fe2c 2022-03-01)", ""])
def test_cargo_that_is_missing_or_old(sources: Path, shown: str) -> None:
    """Without a usable cargo there is no accelerator, and one line says what that costs."""
    programs = sources.parent / "programs"
    programs.mkdir()
    (programs / "cargo").write_text(f"#!/bin/sh\n[ -n '{shown}' ] && echo '{shown}'\n")
    (programs / "cargo").chmod(0o755)

    done = build(sources, PATH=f"{programs}:{os.environ['PATH']}")

    assert done.returncode == 0, done.stderr
    [line] = done.stdout.splitlines()
    assert "without its accelerator" in line
    assert wheels(sources) == []


def test_versions_agree() -> None:
    """The accelerator has the version of the package, which would leave another one alone."""
    package = tomllib.loads((NATIVE / "Cargo.toml").read_text())["package"]
    assert package["version"] == __version__


def test_pins_name_no_address() -> None:
    """Every pin is a name, a version and a SHA-256 of one registry's crate."""
    for line in (NATIVE / "crates.lock").read_text().splitlines():
        assert re.fullmatch(r"[\w-]+ [\w.+-]+ [0-9a-f]{64}", line), line


@pytest.fixture(scope="module")
def crates() -> list[dict[str, Any]]:
    """Cargo's description of each crate for this machine."""
    assert (NATIVE / "Cargo.lock").exists(), "make setup"
    triple = subprocess.check_output(["rustc", "-vV"], text=True)
    platform = re.search("^host: (.*)$", triple, re.MULTILINE)
    assert platform is not None
    options = ("--offline", "--locked", "--format-version=1", "--filter-platform", platform[1])
    found = subprocess.check_output(["cargo", "metadata", *options], cwd=NATIVE)
    packages = json.loads(found)["packages"]
    assert isinstance(packages, list)
    return packages


@needs_cargo
def test_licenses_of_all_crates(crates: list[dict[str, Any]]) -> None:
    """Each part of each crate can be used under a license that fits Apache-2.0."""
    for crate in crates:
        for part in crate["license"].split(" AND "):
            choices = set(part.strip("()").replace("/", " OR ").split(" OR "))
            assert choices & LICENSES, (crate["name"], crate["license"])


@needs_cargo
def test_one_version_of_each_crate(crates: list[dict[str, Any]]) -> None:
    """No crate is compiled in twice, in two versions."""
    assert max(Counter(crate["name"] for crate in crates).values()) == 1
