"""A pull that waits at a moment that no test could meet from outside."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rig.programs import clean_environment
from rig.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rig.programs import Puller

STANDING = ("initpuller.agent_client.cutover", "CutoverClient.standing")
"""The question where the cutover stands."""
_PULL = """
import importlib, sys, time
from pathlib import Path
from initpuller.__main__ import main

module, name, call, mark = sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])
*above, last = name.split(".")
place, calls = importlib.import_module(module), []
for each in above:
    place = getattr(place, each)
real = getattr(place, last)

def waiting(*args, **kwargs):
    calls.append(1)
    if len(calls) == call:
        mark.touch()
        while mark.exists():
            time.sleep(0.01)
    return real(*args, **kwargs)

setattr(place, last, waiting)
sys.argv[1:] = ["pull", *sys.argv[5:]]
main()
"""


@contextmanager
def paused_pull(
    puller: Puller, module: str, name: str, *options: str, call: int = 1
) -> Iterator[subprocess.Popen[bytes]]:
    """Yield a pull that waits at a call; after the block it continues.

    Args:
        puller: the puller, with target and pairing.
        module: name of one of the puller's modules.
        name: a function in the module, or a class and a method.
        options: options of the pull.
        call: number of the call, from 1.
    """
    mark = puller.target.with_name(f"{puller.target.name}-waits")
    words: list[str | Path] = [module, name, str(call), mark, "--target", puller.target, *options]
    command = [sys.executable, "-c", _PULL, *words]
    environment = clean_environment() | puller.environment()
    with puller.log.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        wait_until(mark.exists, meanwhile=process)
        yield process
    except BaseException:
        process.kill()
        process.wait()
        raise
    finally:
        mark.unlink(missing_ok=True)
