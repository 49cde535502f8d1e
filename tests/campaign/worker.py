"""A worker: runs the stories that it reads from its input, one after the other.

::

    worker.py FOLDER   reads names of stories; writes one JSON object for each

It runs in namespaces of its own (campaign/namespaces.py), so that no other Plex, port or mount is
in its way, and nothing of it is left.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from campaign.faults.registry import FAULTS
from campaign.machine import run_story
from campaign.site import LIBRARY
from campaign.story import parse_name

if TYPE_CHECKING:
    from campaign.machine import Outcome

MADE = "made/Library"
"""The library, relative to the folder of the campaign."""
SHIM = "shim.so"
"""The shim, relative to the folder of the campaign, if there is a compiler."""


def main(campaign: Path) -> None:
    """Run a story for each line of the input."""
    shim, made = campaign / SHIM, campaign / MADE
    folder = _folder_of_story(made)
    for line in sys.stdin:
        story, following = parse_name(line.strip(), FAULTS), _folder_of_story(made)
        try:
            done = run_story(story, folder, made, shim if shim.exists() else None)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        folder = following
        _answer(done)


def _folder_of_story(made: Path) -> Path:
    """Return a new folder with a copy of the library.

    It is made one story ahead. No scan trusts the times of a file that has just been made, and a
    pull would fetch again everything that an earlier one left.
    """
    folder = Path(tempfile.mkdtemp(prefix="story-"))
    subprocess.run(["cp", "-a", "--reflink=auto", made, folder / LIBRARY], check=True)
    return folder


def _answer(outcome: Outcome) -> None:
    sys.stdout.write(json.dumps(outcome.plain()) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
