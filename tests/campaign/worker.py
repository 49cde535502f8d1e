"""A worker: runs the stories that it reads from its input, one after the other.

::

    worker.py FOLDER   reads names of stories; writes one JSON object for each

It runs in namespaces of its own (campaign/namespaces.py), so that no other Plex, port or mount is
in its way, and nothing of it is left.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from campaign.faults.registry import FAULTS
from campaign.machine import run_story
from campaign.story import parse_name

if TYPE_CHECKING:
    from campaign.machine import Outcome

MADE = "made/Library"
"""The library, relative to the folder of the campaign."""
SHIM = "shim.so"
"""The shim, relative to the folder of the campaign, if there is a compiler."""


def main(campaign: Path) -> None:
    """Run a story for each line of the input."""
    shim = campaign / SHIM
    for line in sys.stdin:
        story = parse_name(line.strip(), FAULTS)
        folder = Path(tempfile.mkdtemp(prefix="story-"))
        try:
            done = run_story(story, folder, campaign / MADE, shim if shim.exists() else None)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        _answer(done)


def _answer(outcome: Outcome) -> None:
    sys.stdout.write(json.dumps(outcome.plain()) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
