"""`make test-all` runs every suite and reports each failure. Its suites here are stand-ins."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
NO_SUITES = {"coverage", "bench", "bench-fleet", "bench-scale"}
"""In the table of suites, but they judge nothing that the others do not."""
_CASES = """
import pytest

def test_passes():
    pass

def test_fails():
    assert False

def test_skips():
    pytest.skip("on purpose")
"""
_PYTEST = f"{sys.executable} -m pytest -p no:cacheprovider cases.py"
_MAKEFILE = f"""
broken:
\t{_PYTEST}
whole:
\t{_PYTEST} --deselect cases.py::test_fails
without-pytest:
\t@echo "Seeds 1 to 9. Violations: 0."
unprepared:
\t@echo "no such image" >&2; exit 3
"""


def run_all(folder: Path, *suites: str) -> subprocess.CompletedProcess[str]:
    """Run stand-ins for suites below ``folder``, as another make starts them."""
    (folder / "Makefile").write_text(_MAKEFILE)
    (folder / "cases.py").write_text(_CASES)
    command: list[str | Path] = [ROOT / "tests" / "run-all", *suites]
    environment = os.environ | {"MAKELEVEL": "1", "MAKEFLAGS": ""}
    return subprocess.run(
        command, cwd=folder, check=False, capture_output=True, text=True, env=environment
    )


def test_failing_suite_is_reported_and_the_next_ones_run(tmp_path: Path) -> None:
    """A release is not made after a suite that failed, nor is a later failure hidden by it."""
    done = run_all(tmp_path, "broken", "whole", "unprepared", "without-pytest")
    lines = [re.sub(r" +", " ", line) for line in done.stdout.splitlines()]
    expected = [
        r"broken FAILED: 1 failed, 1 passed, 1 skipped, \d+ s \(build/test-all/broken\.log\)",
        r"whole passed: 1 passed, 1 skipped, 1 deselected, \d+ s \(build/test-all/whole\.log\)",
        r"unprepared FAILED: make\[1\]: \*\*\* .* Error 3, \d+ s \(.*/unprepared\.log\)",
        r"without-pytest passed: Seeds 1 to 9\. Violations: 0\., \d+ s \(build/test-all/.*\)",
    ]
    assert len(lines) == len(expected), done
    assert all(map(re.fullmatch, expected, lines)), done
    assert done.returncode == 1
    assert "no such image" in (tmp_path / "build" / "test-all" / "unprepared.log").read_text()


def test_exit_code_is_0_if_every_suite_passed(tmp_path: Path) -> None:
    """A skipped test is reported as such, and does not fail the run."""
    done = run_all(tmp_path, "whole", "without-pytest")
    assert (done.returncode, done.stdout.count("passed:")) == (0, 2), done


def test_suite_that_does_not_exist_fails(tmp_path: Path) -> None:
    """A misspelled suite is not a passed one."""
    done = run_all(tmp_path, "no-such-suite")
    assert done.returncode == 1
    assert "no-such-suite   FAILED: " in done.stdout


@pytest.mark.parametrize("document", ["CONTRIBUTING.md", "Makefile"])
def test_no_suite_is_forgotten(document: str) -> None:
    """A suite that is new in the Makefile or in the table of suites is run by `test-all`, too."""
    text = (ROOT / "tests" / "run-all").read_text()
    found = re.search(r"^suites=\((.*)\)$", text, re.MULTILINE)
    assert found is not None
    row = {"CONTRIBUTING.md": r"^\| `make ([\w-]+)` \|", "Makefile": r"^(test[\w-]*|campaign):"}
    suites = re.findall(row[document], (ROOT / document).read_text(), re.MULTILINE)
    assert set(found[1].split()) == set(suites) - NO_SUITES - {"test-all"}
