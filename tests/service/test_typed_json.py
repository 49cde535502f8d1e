"""A type is first used by several threads at once: the process survives, and nothing is misread."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from shared import typed_json

ROOT = Path(__file__).parent.parent.parent
TYPES = 300
_RACE = """
import json, sys, threading, types
from shared import typed_json

sys.setswitchinterval(1e-6)
given = {f"field{i}": i for i in range(8)} | {"inner": [{"x": 1, "y": ["a"]}]}
count = "Annotated[int, msgspec.Meta(ge=0)] | None"
fields = "".join(f"  field{i}: '{count}' = 0\\n" for i in range(8))
source = (
    "import msgspec\\nfrom typing import Annotated\\n"
    "class Inner(msgspec.Struct):\\n  x: int\\n  y: 'list[str]'\\n"
    f"class Outer(msgspec.Struct):\\n{fields}  inner: 'list[Inner]' = []\\n"
)
for number in range(int(sys.argv[1])):
    module = sys.modules[f"made{number}"] = types.ModuleType(f"made{number}")
    exec(source, module.__dict__)
    barrier, found = threading.Barrier(4), []

    def decode(kind):
        barrier.wait()
        found.append(typed_json.decode(json.dumps(given), kind))

    threads = [threading.Thread(target=decode, args=[module.Outer]) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(found) == 4
    assert all(each.inner == [module.Inner(1, ["a"])] and each.field7 == 7 for each in found)
"""


def test_first_use_by_several_threads() -> None:
    """The agent does not crash while Plex is stopped: msgspec alone ends with SIGSEGV here."""
    done = subprocess.run(
        [sys.executable, "-c", _RACE, str(TYPES)], check=False, capture_output=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr


def test_no_other_module_has_msgspec_read_types() -> None:
    """Each first use of a type has the lock, or happens at the import of its module."""
    used = re.compile(
        r"msgspec\.(json\.decode|convert|from_builtins)\(|^ +.*msgspec\.json\.Decoder\("
    )
    found = [
        f"{path.relative_to(ROOT)}: {line}"
        for folder in ("agent", "initpuller", "shared")
        for path in (ROOT / folder).rglob("*.py")
        if path.name != "typed_json.py"
        for line in path.read_text().splitlines()
        if used.search(line)
    ]
    assert found == []


@pytest.mark.parametrize("text", [b"", b"{", b'{"a": "\x80"}', b'{"a": 1}', b"[" * 100_000])
def test_text_that_is_no_object(text: bytes) -> None:
    """Damage of every kind is one error, which each caller expects."""
    with pytest.raises(msgspec.DecodeError):
        typed_json.decode(text, dict[str, str])
