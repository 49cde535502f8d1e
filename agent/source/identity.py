"""The library's id, which stays the same after a move to another disk or folder of this machine.

::

    STATE/library.json   the id, with the path and the Plex server by which it is recognized
"""

from __future__ import annotations

import hashlib
import os
import socket
from contextlib import suppress

import msgspec

from shared import typed_json
from shared.durable import write_durably
from shared.plex.library import PREFERENCES, server_folder
from shared.plex.preferences import read_preferences

_MACHINE_ID = "/etc/machine-id"


class _Known(msgspec.Struct, frozen=True):
    """The library that this agent served last."""

    id: str
    path: str
    server: str = ""
    """The ``MachineIdentifier`` of its Plex server; empty if it has none."""


def library_id(path: str, state: str = "") -> str:
    """Return the id of the library at ``path``, which has no symlinks.

    The id is derived from the machine and the path. If the last name and the Plex server are as
    before, the library was moved on this machine. It then keeps its id, which the folder ``state``
    stores, unless that is empty.
    """
    server = _server(path)
    if not state:
        return _of_path(path)
    file = os.path.join(state, "library.json")
    known = _load(file)
    found = _Known(_of_path(path), path, server)
    if known is not None and _is_same(known, found):
        found = msgspec.structs.replace(found, id=known.id, server=server or known.server)
    if found != known:
        with suppress(OSError):  # if the state folder is not writable, the scan reports it
            write_durably(file, msgspec.json.encode(found))
    return found.id


def _is_same(known: _Known, found: _Known) -> bool:
    if known.path == found.path:
        return True
    is_same_server = bool(found.server) and known.server == found.server
    return is_same_server and os.path.basename(known.path) == os.path.basename(found.path)


def _load(file: str) -> _Known | None:
    try:
        with open(file, "rb") as opened:
            return typed_json.decode(opened.read(), _Known)
    except (OSError, msgspec.DecodeError):
        return None


def _server(library: str) -> str:
    folder = server_folder(library)
    if folder is None or not os.path.isfile(os.path.join(folder, PREFERENCES)):
        return ""
    try:
        return read_preferences(folder).get("MachineIdentifier", "")
    except (OSError, ValueError):
        return ""


def _of_path(path: str) -> str:
    """Return an id that does not reveal the machine's id, as machine-id(5) requires."""
    try:
        with open(_MACHINE_ID, "rb") as file:
            machine = file.read()
    except OSError:
        machine = socket.gethostname().encode()
    text = b"plexodus library\0" + machine.strip() + b"\0" + os.fsencode(path)
    return hashlib.sha256(text).hexdigest()[:32]
