"""The snapshot to which each client was redirected, so that a client resumes the same archive.

A client that resumes sends the byte where it continues, but not of which archive: curl and wget
send no ``If-Range``. After a redirect to a newer snapshot, it would join two archives unnoticed.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import msgspec

from shared import typed_json
from shared.durable import write_durably
from shared.errors import SnapshotGone

if TYPE_CHECKING:
    from agent.snapshots.store import SnapshotStore

_CLIENTS = 256
"""Number of clients to remember. The ones that came longest ago are forgotten."""


class Handouts:
    """The snapshot of each client, in ``STATE/handouts.json``. Its methods block."""

    def __init__(self, state: str, store: SnapshotStore) -> None:
        self._path = os.path.join(state, "handouts.json")
        self._store = store
        self._lock = threading.Lock()
        self._clients: dict[str, str] = {}
        try:
            with open(self._path, "rb") as file:
                self._clients = typed_json.decode(file.read(), dict[str, str])
        except (OSError, msgspec.DecodeError):
            pass  # as before the first client

    def of(self, client: str) -> str | None:
        """Return the snapshot of ``client``; for a new client, the latest one of any client.

        None before the first client.

        Raises:
            SnapshotGone: If the snapshot no longer exists.
        """
        with self._lock:
            last = next(reversed(self._clients.values()), None)
            found = self._clients.get(client, last)
        if found is not None and not self._store.has(found):
            raise SnapshotGone("the agent no longer has this archive: restart the download")
        return found

    def remember(self, client: str, snapshot: str) -> None:
        """Remember durably that ``client`` is redirected to ``snapshot``.

        Raises:
            OSError: If the state folder cannot be written.
        """
        with self._lock:
            others = [each for each in self._clients.items() if each[0] != client]
            known = dict([*others, (client, snapshot)][-_CLIENTS:])
            if list(known.items()) != list(self._clients.items()):
                write_durably(self._path, msgspec.json.encode(known))
                self._clients = known
