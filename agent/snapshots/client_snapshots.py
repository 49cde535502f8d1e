"""Which client was sent to which snapshot, kept over restarts: who comes back gets the rest of it.

A client that resumes says at which byte it is, but not of what: curl and wget send no ``If-Range``.
Sent to a newer snapshot, it would join two archives without noticing.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import msgspec

from shared.durable import write_durably
from shared.errors import SnapshotGone

if TYPE_CHECKING:
    from agent.snapshots.store import SnapshotStore

_CLIENTS = 256
"""Those that came longest ago are forgotten."""


class Handouts:
    """The snapshot of each client, in ``STATE/handouts.json``. Its methods block.

    Args:
        state: the agent's state folder.
        store: the snapshots.
    """

    def __init__(self, state: str, store: SnapshotStore) -> None:
        self._path = os.path.join(state, "handouts.json")
        self._store = store
        self._lock = threading.Lock()
        self._clients: dict[str, str] = {}
        try:
            with open(self._path, "rb") as file:
                self._clients = msgspec.json.decode(file.read(), type=dict[str, str])
        except (FileNotFoundError, msgspec.MsgspecError):
            pass  # as if nobody had ever come

    def of(self, client: str) -> str | None:
        """The snapshot that ``client`` was sent to; if it is new here, the one sent to last.

        None if nobody was ever sent anywhere.

        Raises:
            SnapshotGone: it is not kept any more.
        """
        with self._lock:
            last = next(reversed(self._clients.values()), None)
            found = self._clients.get(client, last)
        if found is not None and not self._store.has(found):
            raise SnapshotGone("the agent no longer has this archive: restart the download")
        return found

    def remember(self, client: str, snapshot: str) -> None:
        """Remember durably that ``client`` is sent to ``snapshot``.

        Raises:
            OSError: the state folder does not take it.
        """
        with self._lock:
            known = dict(self._clients)
            known.pop(client, None)
            known[client] = snapshot  # last
            while len(known) > _CLIENTS:
                del known[next(iter(known))]
            if list(known.items()) != list(self._clients.items()):
                write_durably(self._path, msgspec.json.encode(known))
                self._clients = known
