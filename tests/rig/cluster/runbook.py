"""The commands of ``docs/runbook.md``, line by line."""

from __future__ import annotations

import re
from pathlib import Path

RUNBOOK = Path(__file__).parents[3] / "docs" / "runbook.md"
_BLOCK = re.compile(r"^```sh (\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_WORD = re.compile(r"^\| `(\w+) (\w+), exit code (\d+): …` \|", re.MULTILINE)


def commands(where: str) -> list[str]:
    """Return the commands for one place: ``vm`` or ``cluster``."""
    blocks = _BLOCK.findall(RUNBOOK.read_text())
    assert {place for place, _ in blocks} == {"vm", "cluster"}
    return [line for place, block in blocks if place == where for line in block.splitlines()]


def last_words() -> list[tuple[str, str, int]]:
    """Return kind, error and exit code of each failure that the runbook explains."""
    return [(kind, error, int(code)) for kind, error, code in _WORD.findall(RUNBOOK.read_text())]
