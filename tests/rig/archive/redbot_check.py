"""REDbot's findings about one URL, as a program, because REDbot's event loop runs only once.

It reads a :class:`Look` from stdin and writes an :class:`Opinion` to stdout, both JSON.
"""

from __future__ import annotations

import os
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import thor
from redbot.resource import HttpResource

if TYPE_CHECKING:
    from redbot.resource.active_check.base import SubRequest

_SECONDS = 60


class Look(msgspec.Struct):
    """The resource to check. Its certificate is not verified."""

    url: str
    method: str
    authorization: str


class Note(msgspec.Struct, frozen=True):
    """One finding of REDbot."""

    request: str
    """The request: ``default``, or the name of the check that sent it."""
    level: str
    name: str
    text: str


class Opinion(msgspec.Struct):
    """All findings of REDbot."""

    statuses: dict[str, int]
    """Status codes by request. Checks that REDbot left out are missing."""
    notes: list[Note]

    def names(self) -> set[str]:
        """Return REDbot's names of the findings."""
        return {note.name for note in self.notes}

    def complaints(self) -> list[Note]:
        """Return the findings that are bad or warnings."""
        return [note for note in self.notes if note.level in {"bad", "warning"}]


def look_at(url: str, method: str = "GET", authorization: str = "") -> Opinion:
    """Return REDbot's findings after its own requests for ranges, conditions and compression."""
    done = subprocess.run(
        [sys.executable, "-m", "rig.archive.redbot_check"],
        input=msgspec.json.encode(Look(url, method, authorization)),
        stdout=subprocess.PIPE,
        check=True,
        timeout=_SECONDS,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    return msgspec.json.decode(done.stdout, type=Opinion)


def _main() -> None:
    look = msgspec.json.decode(sys.stdin.buffer.read(), type=Look)
    config = ConfigParser()
    config.read_dict({"redbot": {"enable_local_access": "yes"}})
    resource = HttpResource(config["redbot"])
    headers = [("Authorization", look.authorization)] if look.authorization else []
    resource.set_request(look.url, look.method, headers)
    resource.once("check_done", thor.stop)
    resource.check()
    thor.run()
    fetched: list[HttpResource | SubRequest] = [resource, *resource.subreqs.values()]
    opinion = Opinion(
        {
            fetcher.check_id: fetcher.response.status_code
            for fetcher in fetched
            if fetcher.response.status_code is not None
        },
        [
            Note(fetcher.check_id, note.level.value, type(note).__name__, str(note))
            for fetcher in fetched
            for note in fetcher.response.notes
        ],
    )
    opinion.notes += [
        Note(fetcher.check_id, "bad", "fetch_error", str(fetcher.fetch_error.desc))
        for fetcher in fetched
        if fetcher.fetch_error is not None
    ]
    sys.stdout.buffer.write(msgspec.json.encode(opinion))


if __name__ == "__main__":
    _main()
