"""Which folder is meant by ``--target``."""

from __future__ import annotations

import os

from initpuller.volume.records.layout import USUAL_NAME, Layout
from initpuller.volume.records.receipt import load_receipt
from initpuller.volume.records.state import load_state
from shared.errors import ConfigurationError, storage_errors
from shared.plex.library import SUPPORT_FOLDER, is_server_name
from shared.presence import is_folder


def open_layout(target: str) -> Layout:
    """Return the layout of the volume that ``target`` means, see :func:`_volume`.

    Raises:
        ConfigurationError: ``target`` is no folder.
        StorageError: the volume cannot be read.
    """
    with storage_errors(target):
        volume = _volume(os.path.abspath(target))
        is_mounted = is_folder(volume)
    if not is_mounted:
        raise ConfigurationError(
            "the target is not a folder", path=target, hint="Is the volume mounted there?"
        )
    return Layout(volume)


def _volume(target: str) -> str:
    """Return the folder that has the puller's records, or will have them.

    Plex's own folder may be moved to two targets, the volume and the ``Library/Application
    Support`` on it, and arrives at the same place. A later run with the other target must find the
    records of the first one. On an empty volume the second target is not there, and is not made.
    """
    above = target.removesuffix(f"/{SUPPORT_FOLDER}")
    if above == target:
        below = Layout(os.path.join(target, SUPPORT_FOLDER))
        receipt = load_receipt(below) if _moved(Layout(target)) is None else None
        return below.target if receipt and is_server_name(receipt.library.name) else target
    moved = _moved(Layout(above))
    if moved is None and not is_folder(target) and is_folder(above):
        return above
    return above if moved == USUAL_NAME and _moved(Layout(target)) is None else target


def _moved(layout: Layout) -> str | None:
    receipt = load_receipt(layout)
    if receipt is not None:
        return receipt.library.name
    state = load_state(layout)
    return state.snapshot.library.name if state is not None else None
